package api

// Setting is one of Cove's settings.
type Setting struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Default     string `json:"default"`
	Set         bool   `json:"set"`     // by the user; otherwise the default holds
	Kind        string `json:"kind"`    // "integer", "size", "path", "choice", "url", "text", "list", "json"
	Allowed     string `json:"allowed"` // the range, for people
	Applies     string `json:"applies"` // "restart": at the next start of the engine; "now"; "live": now where the VM that runs can follow, which the change says
	Description string `json:"description"`
}

// SettingChange is what a change came to.
type SettingChange struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Restart bool   `json:"restart"` // a running engine has to be restarted for it

	Before string `json:"before"`           // what it was
	DryRun bool   `json:"dryRun,omitempty"` // nothing was changed: this is what would be
	Stops  int    `json:"stops,omitempty"`  // containers that run and that the restart would stop
	Note   string `json:"note,omitempty"`   // what else there is to know, for people
}
