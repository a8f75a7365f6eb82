// Package desktop gives a test a desktop's session of its own: a session bus, GNOME's keyring on it,
// libsecret's client, and a GNUPGHOME with pass. What it starts ends with the test.
package desktop
