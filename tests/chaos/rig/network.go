package rig

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Network is a bridge in the namespace of the test, with a namespace for each member behind it. The test itself, and so every
// client, is at the bridge's own address, and no cut ever stands between a client and a member.
type Network struct {
	name   string
	subnet string
	made   []int // numbers of members
}

// hostFirst is the last part of the first member's address; a proxied member has one more address, proxyFirst higher.
const (
	hostFirst  = 11
	hostsMax   = 60
	proxyFirst = 100
)

// NewNetwork makes the bridge. `name` begins the names of all that is made, at most 9 characters, so that whoever started this
// program can remove what it left behind.
//
// # Errors
// Without root, `ip` or a free network of 10.213.0.0/16.
func NewNetwork(name string) (*Network, error) {
	// Two such programs must not choose the same network.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "basalt-chaos.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, err
	}
	network := &Network{name: name}
	for third := range 250 {
		subnet := fmt.Sprintf("10.213.%d", third+1)
		routes, err := run("ip", "-4", "route", "show", "root", subnet+".0/24")
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(routes) == "" {
			network.subnet = subnet
			break
		}
	}
	if network.subnet == "" {
		return nil, fmt.Errorf("no free network in 10.213.0.0/16")
	}
	for _, line := range []string{
		"link add " + name + " type bridge",
		"addr add " + network.subnet + ".1/24 dev " + name,
		"link set " + name + " up",
	} {
		if _, err := run("ip", strings.Fields(line)...); err != nil {
			network.Close()
			return nil, err
		}
	}
	return network, nil
}

// addresses are all that members may ever have.
func (n *Network) addresses() []net.IP {
	addresses := []net.IP{net.IPv4(127, 0, 0, 1)}
	if n == nil {
		return addresses
	}
	for host := hostFirst; host < hostFirst+hostsMax; host++ {
		addresses = append(addresses, net.ParseIP(n.address(host)), net.ParseIP(n.address(host+proxyFirst)))
	}
	return addresses
}

func (n *Network) address(host int) string { return fmt.Sprintf("%s.%d", n.subnet, host) }

// add makes the namespace of a member and returns its name and the member's address.
func (n *Network) add(number int) (namespace, address string, err error) {
	if number >= hostsMax {
		return "", "", fmt.Errorf("this network has room for %d members, old and new", hostsMax)
	}
	namespace = n.namespace(number)
	address = n.address(hostFirst + number)
	outside, inside := n.outside(number), fmt.Sprintf("%si%d", n.name, number)
	n.made = append(n.made, number)
	for _, line := range []string{
		"netns add " + namespace,
		"link add " + outside + " type veth peer name " + inside,
		"link set " + inside + " netns " + namespace,
		"link set " + outside + " master " + n.name + " up",
		"-n " + namespace + " link set " + inside + " name eth0",
		"-n " + namespace + " link set lo up",
		"-n " + namespace + " addr add " + address + "/24 dev eth0",
		"-n " + namespace + " link set eth0 up",
	} {
		if _, err := run("ip", strings.Fields(line)...); err != nil {
			return "", "", err
		}
	}
	return namespace, address, nft(namespace, "add table inet chaos\nadd chain inet chaos cuts { type filter hook input priority 0; }")
}

func (n *Network) namespace(number int) string { return fmt.Sprintf("%s-%d", n.name, number) }

// outside is the end of a member's wire that is at the bridge.
func (n *Network) outside(number int) string { return fmt.Sprintf("%so%d", n.name, number) }

// remove takes a member's namespace and wire away. What was never made is let be.
func (n *Network) remove(number int) {
	_, _ = run("ip", "link", "del", n.outside(number))
	_, _ = run("ip", "netns", "del", n.namespace(number))
}

// Close removes everything.
func (n *Network) Close() {
	for _, number := range n.made {
		n.remove(number)
	}
	_, _ = run("ip", "link", "del", n.name)
}

// nft runs commands in a namespace.
func nft(namespace, commands string) error {
	command := exec.Command("ip", "netns", "exec", namespace, "nft", "-f", "-")
	command.Stdin = strings.NewReader(commands + "\n")
	var output bytes.Buffer
	command.Stdout, command.Stderr = &output, &output
	if err := command.Run(); err != nil {
		return fmt.Errorf("nft %q in %s: %w: %s", commands, namespace, err, &output)
	}
	return nil
}

// run is one command of the system, which must succeed.
func run(name string, args ...string) (string, error) {
	output, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(output))
	}
	return string(output), nil
}
