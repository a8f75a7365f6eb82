package keystore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker-credential-helpers/credentials"
	"github.com/godbus/dbus/v5"
)

// Names of the Secret Service API.
const (
	ssName       = "org.freedesktop.secrets"
	ssPath       = dbus.ObjectPath("/org/freedesktop/secrets")
	ssService    = "org.freedesktop.Secret.Service"
	ssCollection = "org.freedesktop.Secret.Collection"
	ssItem       = "org.freedesktop.Secret.Item"
	ssPrompt     = "org.freedesktop.Secret.Prompt"
	none         = dbus.ObjectPath("/") // "no object", in answers
)

// keyring is one connection to the service, with a session to carry secrets in.
type keyring struct {
	*secretService
	conn    *dbus.Conn
	session session
}

// with connects, does, and makes of an error what people can use.
func (s *secretService) with(do func(context.Context, *keyring) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.askWithin+s.callWithin)
	defer cancel()
	address, err := busAddress()
	if err != nil {
		return err
	}
	conn, err := connect(address, s.callWithin)
	if err != nil {
		return &Problem{Why: "The session bus does not answer.", Remedy: noDesktop, Err: err}
	}
	defer conn.Close()
	k := &keyring{secretService: s, conn: conn}
	if err := k.openSession(ctx); err != nil {
		return serviceProblem(err)
	}
	return serviceProblem(do(ctx, k))
}

const noDesktop = "Run it in the desktop's session, or choose another keystore: docker-credential-cove use file."

// busAddress finds the session bus, and starts none: the D-Bus library would run dbus-launch.
func busAddress() (string, error) {
	if a := os.Getenv("DBUS_SESSION_BUS_ADDRESS"); a != "" {
		return a, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		dir = fmt.Sprintf("/run/user/%d", os.Getuid())
	}
	socket := filepath.Join(dir, "bus")
	if _, err := os.Stat(socket); err != nil {
		return "", &Problem{Why: "There is no session bus here, as over ssh or in a container.", Remedy: noDesktop}
	}
	return "unix:path=" + dbus.EscapeBusAddressValue(socket), nil
}

// connect bounds what the library does not: a bus that takes the connection and says nothing.
func connect(address string, within time.Duration) (*dbus.Conn, error) {
	type result struct {
		conn *dbus.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		conn, err := dbus.Connect(address)
		done <- result{conn, err}
	}()
	select {
	case r := <-done:
		return r.conn, r.err
	case <-time.After(within): // the goroutine ends with the process, soon
		return nil, fmt.Errorf("connect to %s: no answer within %v", address, within)
	}
}

func serviceProblem(err error) error {
	var p *Problem
	var d dbus.Error
	switch {
	case err == nil || errors.As(err, &p) || credentials.IsErrCredentialsNotFound(err):
		return err
	case errors.As(err, &d) && (d.Name == "org.freedesktop.DBus.Error.ServiceUnknown" || d.Name == "org.freedesktop.DBus.Error.NameHasNoOwner"):
		return &Problem{Why: "No keyring runs in this session: nothing on its bus offers " + ssName + ".",
			Remedy: "Install and start one (gnome-keyring, KWallet, KeePassXC), or choose another keystore: docker-credential-cove use file."}
	case errors.As(err, &d) && d.Name == "org.freedesktop.Secret.Error.IsLocked":
		return locked("The keyring is locked.", nil)
	case errors.Is(err, context.DeadlineExceeded):
		return &Problem{Why: "The keyring did not answer in time.", Remedy: "Restart it (log out and in), or choose another keystore: docker-credential-cove use file."}
	}
	return &Problem{Why: "The keyring refused.", Remedy: "Look at the cause in brackets, or choose another keystore: docker-credential-cove use file.", Err: err}
}

func locked(why string, err error) *Problem {
	return &Problem{Why: why, Remedy: "Unlock it (with the desktop's password program, or by logging in with a password) and try again, or choose another keystore: docker-credential-cove use file.", Locked: true, Err: err}
}

// call bounds one call.
func (k *keyring) call(ctx context.Context, path dbus.ObjectPath, method string, args []any, results ...any) error {
	ctx, cancel := context.WithTimeout(ctx, k.callWithin)
	defer cancel()
	return k.conn.Object(ssName, path).CallWithContext(ctx, method, 0, args...).Store(results...)
}

func (k *keyring) search(ctx context.Context, a map[string]string) (open, locked []dbus.ObjectPath, err error) {
	err = k.call(ctx, ssPath, ssService+".SearchItems", []any{a}, &open, &locked)
	return open, locked, err
}

// find gives the items with these attributes, the locked ones unlocked.
func (k *keyring) find(ctx context.Context, a map[string]string) ([]dbus.ObjectPath, error) {
	open, locked, err := k.search(ctx, a)
	if err != nil {
		return nil, err
	}
	if len(locked) > 0 {
		if err := k.unlock(ctx, locked); err != nil {
			return nil, err
		}
		if open, _, err = k.search(ctx, a); err != nil {
			return nil, err
		}
	}
	return open, nil
}

func (k *keyring) unlock(ctx context.Context, paths []dbus.ObjectPath) error {
	var open []dbus.ObjectPath
	prompt := none
	if err := k.call(ctx, ssPath, ssService+".Unlock", []any{paths}, &open, &prompt); err != nil {
		return err
	}
	_, err := k.prompt(ctx, prompt, "The keyring is locked")
	return err
}

// defaultCollection is where items go: made when there is none, and unlocked.
func (k *keyring) defaultCollection(ctx context.Context) (dbus.ObjectPath, error) {
	path := none
	if err := k.call(ctx, ssPath, ssService+".ReadAlias", []any{"default"}, &path); err != nil {
		return "", err
	}
	if path != none {
		var isLocked bool
		if err := k.property(ctx, path, ssCollection, "Locked", &isLocked); err != nil {
			return "", err
		}
		if isLocked {
			return path, k.unlock(ctx, []dbus.ObjectPath{path})
		}
		return path, nil
	}
	const noKeyring = "There is no keyring yet, and a new one asks for a password"
	if !k.ask { // CreateCollection may do without a prompt, and would leave a keyring behind
		return "", locked(noKeyring+".", nil)
	}
	prompt := none
	properties := map[string]dbus.Variant{ssCollection + ".Label": dbus.MakeVariant("Default keyring")}
	if err := k.call(ctx, ssPath, ssService+".CreateCollection", []any{properties, "default"}, &path, &prompt); err != nil {
		return "", err
	}
	if path != none {
		return path, nil
	}
	result, err := k.prompt(ctx, prompt, noKeyring)
	if err != nil {
		return "", err
	}
	if err := result.Store(&path); err != nil {
		return "", err
	}
	return path, nil
}

func (k *keyring) create(ctx context.Context, collection dbus.ObjectPath, label, secret string, a map[string]string) (dbus.ObjectPath, error) {
	properties := map[string]dbus.Variant{ssItem + ".Label": dbus.MakeVariant(label), ssItem + ".Attributes": dbus.MakeVariant(a)}
	value, err := k.session.seal(secret)
	if err != nil {
		return "", err
	}
	path, prompt := none, none
	if err := k.call(ctx, collection, ssCollection+".CreateItem", []any{properties, value, true}, &path, &prompt); err != nil {
		return "", err
	}
	if path != none {
		return path, nil
	}
	result, err := k.prompt(ctx, prompt, "The keyring is locked")
	if err != nil {
		return "", err
	}
	if err := result.Store(&path); err != nil {
		return "", err
	}
	return path, nil
}

func (k *keyring) delete(ctx context.Context, path dbus.ObjectPath) error {
	prompt := none
	if err := k.call(ctx, path, ssItem+".Delete", nil, &prompt); err != nil {
		return err
	}
	_, err := k.prompt(ctx, prompt, "The keyring is locked")
	return err
}

func (k *keyring) secret(ctx context.Context, path dbus.ObjectPath) (string, error) {
	var v secretValue
	if err := k.call(ctx, path, ssItem+".GetSecret", []any{k.session.path}, &v); err != nil {
		return "", err
	}
	return k.session.open(v)
}

func (k *keyring) look(ctx context.Context, path dbus.ObjectPath) (item, error) {
	all := map[string]dbus.Variant{}
	if err := k.call(ctx, path, "org.freedesktop.DBus.Properties.GetAll", []any{ssItem}, &all); err != nil {
		return item{}, err
	}
	i := item{path: path}
	if err := all["Attributes"].Store(&i.attributes); err != nil {
		return item{}, err
	}
	// A service that does not count the time has all items equally old.
	i.modified, _ = all["Modified"].Value().(uint64)
	i.created, _ = all["Created"].Value().(uint64)
	return i, nil
}

func (k *keyring) property(ctx context.Context, path dbus.ObjectPath, iface, name string, into any) error {
	var v dbus.Variant
	if err := k.call(ctx, path, "org.freedesktop.DBus.Properties.Get", []any{iface, name}, &v); err != nil {
		return err
	}
	return v.Store(into)
}

// prompt shows the service's own window and waits for the user. No object is no prompt. Where asking is
// not wanted, it is Locked.
func (k *keyring) prompt(ctx context.Context, path dbus.ObjectPath, why string) (dbus.Variant, error) {
	if path == none {
		return dbus.Variant{}, nil
	}
	dismiss := func() { _ = k.call(context.WithoutCancel(ctx), path, ssPrompt+".Dismiss", nil) }
	if !k.ask {
		dismiss()
		return dbus.Variant{}, locked(why+".", nil)
	}
	signals := make(chan *dbus.Signal, 8)
	k.conn.Signal(signals)
	defer k.conn.RemoveSignal(signals)
	match := []dbus.MatchOption{dbus.WithMatchObjectPath(path), dbus.WithMatchInterface(ssPrompt), dbus.WithMatchMember("Completed")}
	if err := k.conn.AddMatchSignalContext(ctx, match...); err != nil {
		return dbus.Variant{}, err
	}
	if err := k.call(ctx, path, ssPrompt+".Prompt", []any{""}); err != nil {
		return dbus.Variant{}, locked(why+", and its window could not be shown.", err)
	}
	ctx, cancel := context.WithTimeout(ctx, k.askWithin)
	defer cancel()
	for {
		select {
		case s, ok := <-signals:
			if !ok {
				return dbus.Variant{}, &Problem{Why: "The session bus went away while the keyring was asked.", Remedy: noDesktop}
			}
			if s.Path != path || s.Name != ssPrompt+".Completed" || len(s.Body) != 2 {
				continue
			}
			if dismissed, _ := s.Body[0].(bool); dismissed {
				return dbus.Variant{}, locked(why+", and the window that asks for its password was closed, or there was nowhere to show it.", nil)
			}
			result, _ := s.Body[1].(dbus.Variant)
			return result, nil
		case <-ctx.Done():
			dismiss()
			return dbus.Variant{}, locked(fmt.Sprintf("%s, and nobody answered the window that asks for its password within %v.", why, k.askWithin), nil)
		}
	}
}
