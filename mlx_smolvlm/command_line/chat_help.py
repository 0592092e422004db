"""What `/help` says in a chat."""

HELP = """\
/image FILE_OR_URL   show an image with the next question
/video FILE_OR_URL   show a video with the next question
/system TEXT         set the system prompt; without TEXT, remove it
/adapter PATH[=W]    use an adapter, or several; none: the base alone; without PATH, say which
/media               list what goes with the next question; /media remove N (or all) removes
/undo                take back the last question; its media go with the next one
/retry               regenerate the last answer (a different one needs --temperature above 0)
/new                 begin a new conversation; the system prompt stays
/save FILE           save the conversation and its key-value cache
/load FILE           continue a saved conversation
/help                these lines
/quit                end the chat, as exit, quit and Ctrl-D do
Anything else is a question. Lines between triple quotes (\"\"\") are one question, and so are
pasted ones. Images and videos that are dropped on the terminal go with it. Ctrl-C stops an answer; what there is of
it stays. While you type, Ctrl-C clears the line, and never ends the chat."""
