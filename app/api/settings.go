package api

// Setting is one of Cove's settings.
type Setting struct {
	Key         string `json:"key"`
	Value       string `json:"value"`
	Default     string `json:"default"`
	Set         bool   `json:"set"`     // by the user; otherwise the default holds
	Kind        string `json:"kind"`    // "integer", "size", "path", "choice", "json"
	Allowed     string `json:"allowed"` // the range, for people
	Applies     string `json:"applies"` // "restart": at the next start of the engine
	Description string `json:"description"`
}

// SettingChange is what a change came to.
type SettingChange struct {
	Key     string `json:"key"`
	Value   string `json:"value"`
	Restart bool   `json:"restart"` // a running engine has to be restarted for it
}
