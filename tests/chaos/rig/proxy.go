package rig

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// ProxyCommand is the first argument with which this program is the proxy of one member's namespace.
const ProxyCommand = "proxy"

// proxyChunks bounds what waits in one direction of a connection.
const proxyChunks = 256

// startProxy runs the proxy of a member whose way to every other member leads through it: in its namespace the advertised
// addresses of the others are its own. The kernel here has no netem, so this is how packets come late.
func (m *Member) startProxy() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := []string{"netns", "exec", m.namespace, self, ProxyCommand}
	for host := hostFirst; host < hostFirst+proxiedMax; host++ {
		if host == hostFirst+m.Number {
			continue
		}
		listen := m.cluster.network.address(host + proxyFirst)
		if _, err := run("ip", "-n", m.namespace, "addr", "add", listen+"/32", "dev", "lo"); err != nil {
			return err
		}
		args = append(args, fmt.Sprintf("%s:%d=%s:%d", listen, peerPort, m.cluster.network.address(host), peerPort))
	}
	command := exec.Command("ip", args...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.Stderr = os.Stderr
	orders, err := command.StdinPipe()
	if err != nil {
		return err
	}
	answers, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := startOnLastingThread(command); err != nil {
		return err
	}
	m.proxy = &proxy{command: command, orders: orders, answers: bufio.NewScanner(answers)}
	return m.proxy.expect()
}

// proxiedMax is how many members a proxied cluster can have: their addresses are known from the beginning.
const proxiedMax = 8

type proxy struct {
	command *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Scanner
}

func (p *proxy) expect() error {
	if !p.answers.Scan() || p.answers.Text() != "ok" {
		return fmt.Errorf("the proxy of a namespace answers %q", p.answers.Text())
	}
	return nil
}

func (p *proxy) close() {
	p.orders.Close()
	_ = p.command.Process.Kill()
	_ = p.command.Wait()
}

// Delay makes everything that members say to each other come later, by `mean` give or take up to `jitter`; only in a proxied
// cluster.
func (c *Cluster) Delay(mean, jitter time.Duration) error {
	for _, member := range c.Members() {
		if member.proxy == nil {
			return fmt.Errorf("delays need a proxied cluster")
		}
		if err := member.delay(mean, jitter); err != nil {
			return err
		}
	}
	return nil
}

func (m *Member) delay(mean, jitter time.Duration) error {
	if m.proxy == nil {
		return nil
	}
	if _, err := fmt.Fprintf(m.proxy.orders, "%d %d\n", mean, jitter); err != nil {
		return err
	}
	return m.proxy.expect()
}

// ServeProxy is the proxy itself: pairs `listen=target`, and on standard input lines of a mean delay and a jitter in
// nanoseconds. It ends with its input.
func ServeProxy(pairs []string) error {
	var mean, jitter atomic.Int64
	for _, pair := range pairs {
		listen, target, _ := strings.Cut(pair, "=")
		listener, err := net.Listen("tcp", listen)
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go carry(conn, target, &mean, &jitter)
			}
		}()
	}
	fmt.Println("ok")
	for orders := bufio.NewScanner(os.Stdin); orders.Scan(); {
		var newMean, newJitter int64
		if _, err := fmt.Sscan(orders.Text(), &newMean, &newJitter); err != nil {
			return fmt.Errorf("order %q: %w", orders.Text(), err)
		}
		mean.Store(newMean)
		jitter.Store(newJitter)
		fmt.Println("ok")
	}
	return nil
}

// carry connects a caller with its target until either is gone.
func carry(caller net.Conn, target string, mean, jitter *atomic.Int64) {
	defer caller.Close()
	called, err := net.DialTimeout("tcp", target, 2*time.Second)
	if err != nil {
		return
	}
	defer called.Close()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{caller, called}, {called, caller}} {
		go func() {
			carryOneWay(way[0], way[1], mean, jitter)
			done <- struct{}{}
		}()
	}
	<-done
}

// carryOneWay keeps the order, as TCP does: a late piece makes those behind it late.
func carryOneWay(from, to net.Conn, mean, jitter *atomic.Int64) {
	type piece struct {
		due   time.Time
		bytes []byte
	}
	pieces := make(chan piece, proxyChunks)
	go func() {
		defer close(pieces)
		buffer := make([]byte, 64<<10)
		for {
			n, err := from.Read(buffer)
			if n > 0 {
				late := mean.Load()
				if spread := jitter.Load(); spread > 0 {
					late += rand.Int64N(2*spread) - spread
				}
				pieces <- piece{time.Now().Add(time.Duration(late)), append([]byte(nil), buffer[:n]...)}
			}
			if err != nil {
				return
			}
		}
	}()
	for piece := range pieces {
		time.Sleep(time.Until(piece.due))
		if _, err := to.Write(piece.bytes); err != nil {
			break
		}
	}
	// Both, so that the reader ends too.
	to.Close()
	from.Close()
	for range pieces {
	}
}
