package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/covedesk/cove/app/api"
	"github.com/spf13/cobra"
)

func verifyCommand() *cobra.Command {
	var asJSON bool
	var name string
	cmd := &cobra.Command{
		Use: "verify IMAGE", Short: "Check the signature of an image", Args: exactly(1),
		Long: `Check the signature of an image against the keys of ` + "`cove image trust`" + `: cosign's, made with a key.
Only the registry of the image is asked, with docker's credentials. IMAGE may also be a path (./image.tar, ./folder):
an OCI layout with its signatures in it.

It ends with 0 when the image is verified and with 1 when it is not, for whatever reason. Nothing is enforced: what
docker runs is not checked. To run what was verified, name it by the digest that is printed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			q := api.VerifyRequest{Reference: args[0]}
			if isPath(args[0]) {
				path, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				q = api.VerifyRequest{Reference: name, Path: path}
			} else if name != "" {
				return usageError{fmt.Errorf("--name says which image of a file or a folder is meant; %s is neither (./%s would be)", args[0], args[0])}
			}
			c, err := connect(cmd.Context(), true)
			if err != nil {
				return err
			}
			v, err := c.VerifyImage(cmd.Context(), q)
			if err != nil {
				return err
			}
			switch {
			case asJSON && v.Verified:
				return printJSON(os.Stdout, v)
			case asJSON:
				if err := printJSON(os.Stdout, v); err != nil {
					return err
				}
				return exitError(exitFailure)
			case !v.Verified:
				return &api.Error{Failure: api.Failure{Cause: v.Reason, Summary: v.Summary, Remedy: v.Remedy}}
			}
			return printVerified(os.Stdout, v)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: docs/api.md describes it")
	cmd.Flags().StringVar(&name, "name", "", "of a path: the name of the image in it")
	return cmd
}

// isPath says whether a word is meant as a path: image names begin with a letter or a digit.
func isPath(word string) bool {
	return word == "." || word == ".." || strings.HasPrefix(word, "./") || strings.HasPrefix(word, "../") || strings.HasPrefix(word, `.\`) || strings.HasPrefix(word, `..\`) || filepath.IsAbs(word)
}

func printVerified(out io.Writer, v api.Verification) error {
	fmt.Fprintln(out, printable(v.Summary))
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "digest\t%s\n", v.Digest)
	if s := v.Signature; s != nil {
		until := ""
		if !s.Until.IsZero() {
			until = ", which holds until " + s.Until.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "signed by\t%s, trusted for %s%s\n", shortKey(s.Key), printable(s.For), until)
	}
	if v.Index != "" {
		fmt.Fprintf(w, "contained in\t%s\n", v.Index)
	}
	for i, p := range v.Platforms {
		head := ""
		if i == 0 {
			head = "contains"
		}
		fmt.Fprintf(w, "%s\t%s %s\n", head, p.Digest, printable(p.Platform))
	}
	if e := v.Engine; e != nil {
		fmt.Fprintf(w, "engine\t%s\n", printable(engineHas(*e)))
	}
	fmt.Fprintf(w, "by digest\t%s@%s\n", v.Repository, v.Digest)
	return w.Flush()
}

// engineHas says whether the engine has the image that was verified.
func engineHas(e api.EngineImage) string {
	switch {
	case e.Same:
		return "has this image"
	case len(e.Digests) > 0:
		return "has another image by this name: " + strings.Join(e.Digests, ", ") + "; `docker pull` fetches this one"
	}
	return "does not have it yet"
}
