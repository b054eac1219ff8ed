// Command certs writes the certificates and keys that a control plane for tests needs into one folder:
//
//	ca.crt, ca.key                  the authority of everything below but the front proxy
//	apiserver.crt, apiserver.key    the API server's serving certificate, for loopback and the addresses given
//	kubelet-client.crt, kubelet-client.key  what the API server shows to kubelets
//	service-account.key             signs service accounts' tokens
//	front-proxy-ca.crt              the authority that aggregated API servers trust
//	front-proxy.crt, front-proxy.key  what the API server shows to them
//
// They are good for one test run: nothing here is a secret of anything else.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type pair struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: certs FOLDER [ADDRESS...]")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "certs:", err)
		os.Exit(1)
	}
}

func run(folder string, more []string) error {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.IPv4(10, 0, 0, 1)}
	for _, text := range more {
		address := net.ParseIP(text)
		if address == nil {
			return fmt.Errorf("%q is not an IP address", text)
		}
		addresses = append(addresses, address)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	ca, err := issue(folder, "ca", nil, authority("bellhop-test-ca"))
	if err != nil {
		return err
	}
	_, err = issue(folder, "apiserver", ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
		IPAddresses: addresses,
	})
	if err != nil {
		return err
	}
	_, err = issue(folder, "kubelet-client", ca, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	frontProxyCA, err := issue(folder, "front-proxy-ca", nil, authority("bellhop-test-front-proxy-ca"))
	if err != nil {
		return err
	}
	_, err = issue(folder, "front-proxy", frontProxyCA, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "front-proxy"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return err
	}
	_, err = newKey(folder, "service-account")
	return err
}

func authority(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
}

// issue makes a key and a certificate for it, signed by issuer, or by itself if issuer is nil.
func issue(folder, name string, issuer *pair, template *x509.Certificate) (*pair, error) {
	key, err := newKey(folder, name)
	if err != nil {
		return nil, err
	}
	template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	template.KeyUsage |= x509.KeyUsageDigitalSignature
	parent := &pair{template, key}
	if issuer != nil {
		parent = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.certificate, key.Public(), crypto.Signer(parent.key))
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &pair{certificate, key}, write(folder, name+".crt", "CERTIFICATE", der)
}

func newKey(folder, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, write(folder, name+".key", "EC PRIVATE KEY", der)
}

func write(folder, name, kind string, der []byte) error {
	return os.WriteFile(filepath.Join(folder, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
