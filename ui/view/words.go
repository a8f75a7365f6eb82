package view

// Words of the window that stand by themselves, for who translates. Sentences with names in them are where they are made.
const (
	wordCove       = "Cove"
	wordContainers = "Containers"
	wordImages     = "Images"

	wordSearchContainers = "Search names, images, projects, ports"
	wordSearchImages     = "Search images"
	wordSearchLogs       = "Search in logs"
	wordSearchText       = "Search"
	wordPalette          = "Go to a container, an image, a page, an act"

	wordAll, wordRunning, wordStopped = "All", "Running", "Stopped"
	wordInUse, wordUnused             = "In use", "Unused"

	wordName, wordImage, wordPorts, wordCPU, wordMemory, wordSince = "Name", "Image", "Ports", "CPU", "Memory", "Since"
	wordSize, wordCreated, wordUsedBy                              = "Size", "Created", "Used by"

	wordRun, wordStart, wordStop, wordRestart, wordPause, wordResume, wordRemove = "Run", "Start", "Stop", "Restart", "Pause", "Resume", "Remove"
	wordPull, wordPrune, wordCancel, wordClose, wordCopy, wordSave, wordClear    = "Pull", "Remove unused", "Cancel", "Close", "Copy", "Save", "Clear"
	wordWake, wordRetry, wordDetails, wordBack, wordClearFilters                 = "Wake it", "Try again", "Details", "Back", "Clear filters"
	wordStartEngine, wordCancelStart                                             = "Start the engine", "Cancel the start"
	wordInBackground, wordCancelPull                                             = "Run in background", "Cancel the pull"
	wordLogs, wordStats, wordInspect                                             = "Logs", "Stats", "Inspect"
	wordFollow, wordTimes, wordSecrets                                           = "Follow", "Times", "Show secrets"

	wordNoContainers     = "No containers yet"
	wordNoContainersHint = "Containers that you run show up here. Try one:"
	wordNoImages         = "No images yet"
	wordNoImagesHint     = "Images that you pull or build show up here. Try one:"
	wordNothingMatches   = "Nothing matches"
	wordNothingHint      = "No entry has all the words of the search in it, or the filter hides it."
	wordLoading          = "Reading the engine's list …"
	wordListFailed       = "The engine's list could not be read"
	wordSameAs           = "Same as"
	wordCopied           = "Copied"
	wordNone             = "–"

	wordRunContainer, wordPullImage, wordGoTo, wordLook                    = "Run a container", "Pull an image", "Go to", "Light or dark"
	wordPortsField, wordEnvironment, wordVolumes, wordCommand, wordNetwork = "Ports, HOST:CONTAINER", "Environment", "Folders and volumes", "Command", "Network"
	wordRemoveAtEnd                                                        = "Remove it when it ends"

	wordExampleRun  = "docker run -d -p 8080:80 nginx:alpine"
	wordExamplePull = "docker pull alpine:3"
)
