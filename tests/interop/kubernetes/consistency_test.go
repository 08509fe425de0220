package kubernetes

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

const checksMetric = "apiserver_storage_consistency_checks_total"

// checks counts the outcomes of consistency checks by resource type: cache and store were equal, differed, or could not
// be compared.
type checks struct{ success, difference, trouble map[string]float64 }

// checkedTypes are those that the API server caches.
var checkedTypes = []string{widgets.Resource + "." + widgets.Group, "customresourcedefinitions.apiextensions.k8s.io"}

// expectNoDifference fails if a cache has differed from the store since `before`.
func (c checks) expectNoDifference(t *testing.T, before checks) {
	t.Helper()
	for _, resource := range checkedTypes {
		if c.difference[resource] != before.difference[resource] {
			t.Fatalf("the cache of %s differs from the store: %+v, before %+v", resource, c, before)
		}
	}
}

// expectNoTrouble fails if a check since `before` has ended in any way but success.
func (c checks) expectNoTrouble(t *testing.T, before checks) {
	t.Helper()
	c.expectNoDifference(t, before)
	for _, resource := range checkedTypes {
		if c.trouble[resource] != before.trouble[resource] {
			t.Fatalf("a consistency check of %s could not be made: %+v, before %+v", resource, c, before)
		}
	}
}

// keepTrouble has the successes of `c`, and of failures only those of `before`: what failed between counts as new.
func (c checks) keepTrouble(before checks) checks {
	return checks{c.success, before.difference, before.trouble}
}

func readChecks(t *testing.T) checks {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	c := checks{map[string]float64{}, map[string]float64{}, map[string]float64{}}
	for _, family := range families {
		if family.GetName() != checksMetric {
			continue
		}
		for _, sample := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range sample.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			resource := labels["resource"] + "." + labels["group"]
			value := sample.GetCounter().GetValue()
			switch labels["status"] {
			case "success":
				c.success[resource] += value
			case "failure":
				c.difference[resource] += value
			default:
				c.trouble[resource] += value
			}
		}
	}
	return c
}

// awaitChecks waits until every type has passed `rounds` more checks than in `before`, and fails at any check that
// ended otherwise.
func awaitChecks(t *testing.T, ctx context.Context, before checks, rounds float64) {
	t.Helper()
	eventually(t, ctx, "consistency checks", func() error {
		now := readChecks(t)
		now.expectNoTrouble(t, before)
		for _, resource := range checkedTypes {
			if now.success[resource] < before.success[resource]+rounds {
				return fmt.Errorf("%s passed %v checks, before %v", resource, now.success[resource], before.success[resource])
			}
		}
		return nil
	})
}
