package rig

import "fmt"

// Cut says what of one member's packets no longer reaches another.
type Cut string

const (
	// Everything: also the acknowledgements of what goes the other way, so that in the end nothing goes either way.
	Everything Cut = "drop"
	// Payload alone: what the other says still arrives and is acknowledged. A packet without payload is below 100 bytes.
	Payload Cut = "meta length > 100 drop"
)

// Loss loses packets at random, so many of a hundred.
func Loss(percent int) Cut { return Cut(fmt.Sprintf("numgen random mod 100 < %d drop", percent)) }

// Cut stops what one member sends to another; the other way is another cut.
func (c *Cluster) Cut(from, to *Member, cut Cut) error {
	return nft(to.namespace, fmt.Sprintf("add rule inet chaos cuts ip saddr %s %s", from.Address, cut))
}

// CutBoth stops what two members say to each other.
func (c *Cluster) CutBoth(one, other *Member) error {
	if err := c.Cut(one, other, Everything); err != nil {
		return err
	}
	return c.Cut(other, one, Everything)
}

// Isolate cuts a member off from all others.
func (c *Cluster) Isolate(member *Member) error {
	for _, other := range c.Others(member) {
		if err := c.CutBoth(member, other); err != nil {
			return err
		}
	}
	return nil
}

// Narrow gives every member so many kilobits a second to send.
func (c *Cluster) Narrow(kilobits int) error {
	for _, member := range c.Members() {
		if _, err := run("tc", "-n", member.namespace, "qdisc", "replace", "dev", "eth0", "root", "tbf",
			"rate", fmt.Sprintf("%dkbit", kilobits), "burst", "32kbit", "latency", "400ms"); err != nil {
			return err
		}
	}
	return nil
}

// HealNetwork takes all cuts, losses, bounds and delays back.
func (c *Cluster) HealNetwork() error {
	for _, member := range c.Members() {
		if err := nft(member.namespace, "flush chain inet chaos cuts"); err != nil {
			return err
		}
		// There is none to delete but after Narrow.
		_, _ = run("tc", "-n", member.namespace, "qdisc", "del", "dev", "eth0", "root")
		if err := member.delay(0, 0); err != nil {
			return err
		}
	}
	return nil
}
