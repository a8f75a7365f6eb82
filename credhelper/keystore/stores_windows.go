package keystore

// All are the keystores of this system, in order of preference.
func All(o Options) []Store { return []Store{credentialManager{}, NewAgeFile(o.Dir)} }
