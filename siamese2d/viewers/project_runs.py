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


def start(project, window, protocol) -> None:
    """Launch a protocol.

    Parameters
    ----------
    project : pyworkflow.project.Project
    window : pyworkflow.gui.Window or None
        Window from which it is started; the project's own window, where there is one, shows the new run.
    protocol : Protocol
    """
    main = project_window(window)
    if main is None:
        project.launchProtocol(protocol, wait=False)
    else:
        main.getViewWidget().executeProtocol(protocol)


def project_window(window):
    """The project's main window among a window and those that it was opened from; None where there is none."""
    while window is not None and not hasattr(window, "getViewWidget"):
        window = getattr(window, "master", None)
    return window
