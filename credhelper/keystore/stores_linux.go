package keystore

// All are the keystores of this system, in order of preference. pass is for those who have set it up.
func All(o Options) []Store {
	return []Store{newSecretService(o.Ask), newPass(o.Ask), NewAgeFile(o.Dir)}
}
