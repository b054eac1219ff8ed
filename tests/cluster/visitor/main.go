// Command visitor is what tests send into a pod, to see from there what a pod sees:
//
//	GET  /healthz           200
//	GET  /fetch?url=URL     fetches it, and answers with status and body, or 502 and the error
//	GET  /resolve?name=NAME the addresses of a name, one a line, or 502 and the error
//	GET  /files/NAME        a file of the folder in $FOLDER
//	PUT  /files/NAME        writes it, and answers when it is on disk
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	client := &http.Client{Timeout: 5 * time.Second}
	fail := func(answer http.ResponseWriter, err error) { http.Error(answer, err.Error(), http.StatusBadGateway) }
	http.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("GET /fetch", func(answer http.ResponseWriter, request *http.Request) {
		response, err := client.Get(request.URL.Query().Get("url"))
		if err != nil {
			fail(answer, err)
			return
		}
		defer response.Body.Close()
		answer.WriteHeader(response.StatusCode)
		io.Copy(answer, response.Body)
	})
	http.HandleFunc("GET /resolve", func(answer http.ResponseWriter, request *http.Request) {
		addresses, err := net.LookupHost(request.URL.Query().Get("name"))
		if err != nil {
			fail(answer, err)
			return
		}
		fmt.Fprintln(answer, strings.Join(addresses, "\n"))
	})
	http.HandleFunc("GET /files/{name}", func(answer http.ResponseWriter, request *http.Request) {
		http.ServeFile(answer, request, filepath.Join(os.Getenv("FOLDER"), request.PathValue("name")))
	})
	http.HandleFunc("PUT /files/{name}", func(answer http.ResponseWriter, request *http.Request) {
		if err := write(filepath.Join(os.Getenv("FOLDER"), request.PathValue("name")), request.Body); err != nil {
			fail(answer, err)
		}
	})

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-stop
		os.Exit(0)
	}()
	fmt.Fprintln(os.Stderr, http.ListenAndServe(":8080", nil))
	os.Exit(1)
}

func write(path string, content io.Reader) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := io.Copy(file, content); err != nil {
		return err
	}
	return file.Sync()
}
