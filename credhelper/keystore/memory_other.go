//go:build !linux

package keystore

// memoryFolder: these systems have no folder of the user's in memory.
func memoryFolder() (string, error) {
	return "", &Problem{
		Why:    "This system has no folder in memory to keep an unlocked identity in, so the encrypted file can have no passphrase.",
		Remedy: "Use the system's own keystore, or the file without a passphrase: docker-credential-cove use file --no-passphrase.",
	}
}
