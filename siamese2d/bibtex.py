"""

@article{Bepler2019,
  title   = {Positive-unlabeled convolutional neural networks for particle picking in cryo-electron micrographs},
  author  = {Bepler, Tristan and Morin, Andrew and Rapp, Micah and Brasch, Julia and Shapiro, Lawrence and
             Noble, Alex J. and Berger, Bonnie},
  journal = {Nature Methods},
  volume  = {16},
  pages   = {1153-1160},
  year    = {2019},
  doi     = {http://dx.doi.org/10.1038/s41592-019-0575-8}
}

@inproceedings{Kiryo2017,
  title     = {Positive-Unlabeled Learning with Non-Negative Risk Estimator},
  author    = {Kiryo, Ryuichi and Niu, Gang and du Plessis, Marthinus C. and Sugiyama, Masashi},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {30},
  year      = {2017},
  url       = {https://arxiv.org/abs/1703.00593}
}

@inproceedings{Chen2020,
  title     = {A Simple Framework for Contrastive Learning of Visual Representations},
  author    = {Chen, Ting and Kornblith, Simon and Norouzi, Mohammad and Hinton, Geoffrey},
  booktitle = {Proceedings of the 37th International Conference on Machine Learning},
  pages     = {1597-1607},
  year      = {2020},
  url       = {https://arxiv.org/abs/2002.05709}
}

@inproceedings{Hadsell2006,
  title     = {Dimensionality Reduction by Learning an Invariant Mapping},
  author    = {Hadsell, Raia and Chopra, Sumit and LeCun, Yann},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages     = {1735-1742},
  year      = {2006},
  doi       = {http://dx.doi.org/10.1109/CVPR.2006.100}
}

@inproceedings{Schroff2015,
  title     = {FaceNet: A Unified Embedding for Face Recognition and Clustering},
  author    = {Schroff, Florian and Kalenichenko, Dmitry and Philbin, James},
  booktitle = {IEEE Conference on Computer Vision and Pattern Recognition},
  pages     = {815-823},
  year      = {2015},
  doi       = {http://dx.doi.org/10.1109/CVPR.2015.7298682}
}

@inproceedings{ChenHe2021,
  title     = {Exploring Simple Siamese Representation Learning},
  author    = {Chen, Xinlei and He, Kaiming},
  booktitle = {IEEE/CVF Conference on Computer Vision and Pattern Recognition},
  pages     = {15750-15758},
  year      = {2021},
  doi       = {http://dx.doi.org/10.1109/CVPR46437.2021.01549}
}

@inproceedings{Khosla2020,
  title     = {Supervised Contrastive Learning},
  author    = {Khosla, Prannay and Teterwak, Piotr and Wang, Chen and Sarna, Aaron and Tian, Yonglong and
               Isola, Phillip and Maschinot, Aaron and Liu, Ce and Krishnan, Dilip},
  booktitle = {Advances in Neural Information Processing Systems},
  volume    = {33},
  year      = {2020},
  url       = {https://arxiv.org/abs/2004.11362}
}

@article{Huang2024,
  title   = {MiLoPYP: self-supervised molecular pattern mining and particle localization in situ},
  author  = {Huang, Qinwen and Zhou, Ye and Bartesaghi, Alberto},
  journal = {Nature Methods},
  volume  = {21},
  year    = {2024},
  doi     = {http://dx.doi.org/10.1038/s41592-024-02403-6}
}

@article{Lindeberg1998,
  title   = {Feature Detection with Automatic Scale Selection},
  author  = {Lindeberg, Tony},
  journal = {International Journal of Computer Vision},
  volume  = {30},
  pages   = {79-116},
  year    = {1998},
  doi     = {http://dx.doi.org/10.1023/A:1008045108935}
}

@article{Roseman2003,
  title   = {Particle finding in electron micrographs using a fast local correlation algorithm},
  author  = {Roseman, Alan M.},
  journal = {Ultramicroscopy},
  volume  = {94},
  pages   = {225-236},
  year    = {2003},
  doi     = {http://dx.doi.org/10.1016/S0304-3991(02)00333-9}
}

@article{Efron2004,
  title   = {Large-Scale Simultaneous Hypothesis Testing: The Choice of a Null Hypothesis},
  author  = {Efron, Bradley},
  journal = {Journal of the American Statistical Association},
  volume  = {99},
  pages   = {96-104},
  year    = {2004},
  doi     = {http://dx.doi.org/10.1198/016214504000000089}
}

"""
