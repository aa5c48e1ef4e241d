// Sample is the application that tests and demos release, and the load that
// is put on it.
//
//	sample [serve]        an HTTP server that fails as its environment says
//	sample load FLAG...   requests at a constant rate, counted
package main

import (
	"fmt"
	"os"
)

func main() {
	command, args := "serve", os.Args[1:]
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "serve":
		err = serve(args)
	case "load":
		err = load(args)
	default:
		err = fmt.Errorf("unknown command %q; known are serve and load", command)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "sample:", err)
		os.Exit(1)
	}
}
