package keystore

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"math/big"

	"github.com/godbus/dbus/v5"
)

// session carries secrets between us and the service encrypted, so that who records the bus (dbus-monitor,
// busctl capture) does not have them in the record. It is no defence against a program of the same user,
// who can ask the service as we do.
type session struct {
	path dbus.ObjectPath
	key  []byte // of AES-128; nil where the service speaks "plain" alone
}

// secretValue is a secret as the API carries it.
type secretValue struct {
	Session     dbus.ObjectPath
	Parameters  []byte // the initialisation vector
	Value       []byte
	ContentType string
}

// The second Oakley group, RFC 2409 section 6.2, which the API names.
var (
	dhPrime, _  = new(big.Int).SetString("FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE649286651ECE65381FFFFFFFFFFFFFFFF", 16)
	dhGenerator = big.NewInt(2)
	errDamaged  = errors.New("the secret came damaged")
)

const (
	dhBytes      = 128
	dhAlgorithm  = "dh-ietf1024-sha256-aes128-cbc-pkcs7"
	notSupported = "org.freedesktop.DBus.Error.NotSupported"
)

// openSession agrees on a key with the service.
func (k *keyring) openSession(ctx context.Context) error {
	private, err := rand.Int(rand.Reader, dhPrime)
	if err != nil {
		return err
	}
	public := new(big.Int).Exp(dhGenerator, private, dhPrime).FillBytes(make([]byte, dhBytes))
	var theirs dbus.Variant
	err = k.call(ctx, ssPath, ssService+".OpenSession", []any{dhAlgorithm, dbus.MakeVariant(public)}, &theirs, &k.session.path)
	var d dbus.Error
	if errors.As(err, &d) && d.Name == notSupported {
		return k.call(ctx, ssPath, ssService+".OpenSession", []any{"plain", dbus.MakeVariant("")}, &theirs, &k.session.path)
	}
	if err != nil {
		return err
	}
	b, ok := theirs.Value().([]byte)
	if !ok {
		return errors.New("the service gave no key for the session")
	}
	shared := new(big.Int).Exp(new(big.Int).SetBytes(b), private, dhPrime).FillBytes(make([]byte, dhBytes))
	k.session.key, err = hkdf.Key(sha256.New, shared, nil, "", aes.BlockSize)
	return err
}

func (s session) seal(secret string) (secretValue, error) {
	v := secretValue{Session: s.path, Parameters: []byte{}, Value: []byte(secret), ContentType: "text/plain"}
	if s.key == nil {
		return v, nil
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return v, err
	}
	padding := aes.BlockSize - len(v.Value)%aes.BlockSize // PKCS #7
	for range padding {
		v.Value = append(v.Value, byte(padding))
	}
	v.Parameters = make([]byte, aes.BlockSize)
	if _, err := rand.Read(v.Parameters); err != nil {
		return v, err
	}
	cipher.NewCBCEncrypter(block, v.Parameters).CryptBlocks(v.Value, v.Value)
	return v, nil
}

func (s session) open(v secretValue) (string, error) {
	if s.key == nil {
		return string(v.Value), nil
	}
	block, err := aes.NewCipher(s.key)
	if err != nil {
		return "", err
	}
	n := len(v.Value)
	if len(v.Parameters) != aes.BlockSize || n == 0 || n%aes.BlockSize != 0 {
		return "", errDamaged
	}
	cipher.NewCBCDecrypter(block, v.Parameters).CryptBlocks(v.Value, v.Value)
	padding := int(v.Value[n-1])
	if padding == 0 || padding > aes.BlockSize {
		return "", errDamaged
	}
	return string(v.Value[:n-padding]), nil
}
