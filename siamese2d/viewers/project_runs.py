"""Starting protocols from a viewer's window, so that what was chosen is part of the project's history."""


def output_of(project, item):
    """The protocol that `item` is an output of, and the name of that output; None and "" where there is none."""
    owner = project.getProtocol(item.getObjParentId()) if item.getObjParentId() else None
    name = output_name(owner, item) if owner is not None else ""
    return (owner, name) if name else (None, "")


def output_name(protocol, item) -> str:
    """What a protocol calls its output; "" where it is none."""
    return next((name for name, output in protocol.iterOutputAttributes() if output.getObjId() == item.getObjId()), "")


def point_to(pointer, project, item) -> None:
    """Make an input of a protocol point to a set: as the output of its protocol where it is one."""
    owner, name = output_of(project, item)
    pointer.set(item if owner is None else owner)
    if owner is not None:
        pointer.setExtended(name)


def launch(project, window, kind, label: str, inputs: dict, values: dict):
    """Launch a new run of a protocol.

    Parameters
    ----------
    project : pyworkflow.project.Project
    window : pyworkflow.gui.Window or None
        Window from which it is started; the project's own window, where there is one, shows the new run.
    kind : type
        Class of the protocol.
    label : str
        Name of the run.
    inputs, values : dict
        Sets and values of the form's parameters.

    Returns
    -------
    Protocol
    """
    protocol = project.newProtocol(kind)
    protocol.setObjLabel(label)
    for name, item in inputs.items():
        point_to(getattr(protocol, name), project, item)
    for name, value in values.items():
        getattr(protocol, name).set(value)
    main = project_window(window)
    if main is None:
        project.launchProtocol(protocol, wait=False)
    else:
        main.getViewWidget().executeProtocol(protocol)
    return protocol


def project_window(window):
    """The project's main window among a window and those that it was opened from; None where there is none."""
    while window is not None and not hasattr(window, "getViewWidget"):
        window = getattr(window, "master", None)
    return window
