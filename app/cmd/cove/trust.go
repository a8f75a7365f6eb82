package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/covedesk/cove/app/api"
	"github.com/covedesk/cove/app/client"
	"github.com/spf13/cobra"
)

const trustSetting = "trust.keys"

// maxKeyFile is more than coved takes.
const maxKeyFile = 64 << 10

// trusted is one entry of the setting.
type trusted struct {
	For   string `json:"for"`
	Key   string `json:"key"`
	From  string `json:"from,omitempty"`
	Until string `json:"until,omitempty"`
}

func trustCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "trust", Short: "The keys by which images are verified", Args: exactly(0),
		Long: "The keys by which `cove image verify` checks images: the setting " + trustSetting + ".",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var asJSON bool
	list := &cobra.Command{
		Use: "list", Short: "All keys, with the images that they are for", Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return configured(cmd.Context(), func(ctx context.Context, c *client.Client) error {
				all, err := trustedKeys(ctx, c)
				if err != nil {
					return err
				}
				if asJSON {
					return printJSON(os.Stdout, all)
				}
				if len(all) == 0 {
					fmt.Println("There are no keys. `cove image trust add registry.example.com/team/app --key cosign.pub` adds one.")
					return nil
				}
				w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "FOR\tKEY\tFROM\tUNTIL")
				for _, k := range all {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(k.For), printable(k.label()), cmp.Or(printable(k.From), "-"), cmp.Or(printable(k.Until), "-"))
				}
				return w.Flush()
			})
		},
	}
	list.Flags().BoolVar(&asJSON, "json", false, "for programs")
	var k trusted
	add := &cobra.Command{
		Use: "add IMAGES --key FILE", Short: "Trust a public key for images", Args: exactly(1),
		Long: "Trust a public key, such as cosign.pub, or a certificate for images. IMAGES is a repository\n(registry.example.com/team/app, or alpine), all repositories below a name (registry.example.com/team/*), or\n* for all there are. Of several the most exact counts. The key itself is kept, not the file's place.",
		RunE: func(cmd *cobra.Command, args []string) error {
			k.For = args[0]
			file := k.Key
			f, err := os.Open(file)
			if err != nil {
				return fmt.Errorf("read the key: %w", err)
			}
			defer f.Close()
			text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
			if err != nil {
				return fmt.Errorf("read the key: %w", err)
			}
			if k.Key = strings.TrimSpace(string(text)); !strings.HasPrefix(k.Key, "-----BEGIN ") {
				return problem(api.CauseInvalid, file+" holds no key.", "Give a public key or a certificate as PEM, such as cosign.pub.")
			}
			return changeTrust(cmd.Context(), func(all []trusted) ([]trusted, string) {
				all = slices.DeleteFunc(all, func(o trusted) bool { return o.For == k.For && o.Key == k.Key })
				return append(all, k), fmt.Sprintf("The key %s is trusted for %s.", k.label(), k.For)
			})
		},
	}
	add.Flags().StringVar(&k.Key, "key", "", "the file with the public key or the certificate (PEM)")
	add.Flags().StringVar(&k.From, "from", "", "when the key begins to hold: 2027-01-31, or 2027-01-31T12:00:00Z")
	add.Flags().StringVar(&k.Until, "until", "", "when it ends; a day still belongs to it")
	add.MarkFlagRequired("key")
	remove := &cobra.Command{
		Use: "remove IMAGES", Short: "Trust the keys for images no longer", Args: exactly(1),
		Long: "Trust the keys for images no longer. IMAGES is written as in `cove image trust list`.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return changeTrust(cmd.Context(), func(all []trusted) ([]trusted, string) {
				before := len(all)
				all = slices.DeleteFunc(all, func(o trusted) bool { return o.For == args[0] })
				switch n := before - len(all); n {
				case 0:
					return nil, fmt.Sprintf("There is no key for %s; nothing was changed.", args[0])
				case 1:
					return all, fmt.Sprintf("The key for %s is removed.", args[0])
				default:
					return all, fmt.Sprintf("%d keys for %s are removed.", n, args[0])
				}
			})
		},
	}
	cmd.AddCommand(list, add, remove)
	return cmd
}

func trustedKeys(ctx context.Context, c *client.Client) ([]trusted, error) {
	s, err := c.Setting(ctx, trustSetting)
	if err != nil {
		return nil, err
	}
	all := []trusted{}
	if err := json.Unmarshal([]byte(s.Value), &all); err != nil {
		return nil, fmt.Errorf("read the setting %s: %w", trustSetting, err)
	}
	return all, nil
}

// changeTrust changes the setting; nil leaves it as it is.
func changeTrust(ctx context.Context, change func([]trusted) ([]trusted, string)) error {
	return configured(ctx, func(ctx context.Context, c *client.Client) error {
		all, err := trustedKeys(ctx, c)
		if err != nil {
			return err
		}
		next, said := change(all)
		if next != nil {
			b, err := json.Marshal(next)
			if err != nil {
				return err
			}
			if _, err := c.Set(ctx, trustSetting, string(b), false); err != nil {
				return err
			}
		}
		fmt.Println(said)
		return nil
	})
}

// label is a key for people: its file, or the beginning of its fingerprint, as `cove image verify` has it.
func (k trusted) label() string {
	block, _ := pem.Decode([]byte(k.Key))
	if block == nil {
		return k.Key
	}
	der := block.Bytes
	if c, err := x509.ParseCertificate(der); err == nil {
		der = c.RawSubjectPublicKeyInfo
	}
	sum := sha256.Sum256(der)
	return shortKey(hex.EncodeToString(sum[:]))
}

// shortKey is a fingerprint for people.
func shortKey(fingerprint string) string { return "SHA256:" + fingerprint[:min(16, len(fingerprint))] }
