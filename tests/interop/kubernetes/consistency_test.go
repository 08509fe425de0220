package kubernetes

import (
	"context"
	"fmt"
	"testing"

	"k8s.io/component-base/metrics/legacyregistry"
)

const checksMetric = "apiserver_storage_consistency_checks_total"

// checks counts the outcomes of consistency checks by resource type.
type checks struct{ success, trouble map[string]float64 }

func readChecks(t *testing.T) checks {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	c := checks{map[string]float64{}, map[string]float64{}}
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
			if labels["status"] == "success" {
				c.success[resource] += sample.GetCounter().GetValue()
			} else {
				c.trouble[resource] += sample.GetCounter().GetValue()
			}
		}
	}
	return c
}

// awaitChecks waits until every type has passed `rounds` more checks than in `before`, and fails at any check that
// ended otherwise.
func awaitChecks(t *testing.T, ctx context.Context, before checks, rounds float64) {
	t.Helper()
	types := []string{widgets.Resource + "." + widgets.Group, "customresourcedefinitions.apiextensions.k8s.io"}
	eventually(t, ctx, "consistency checks", func() error {
		now := readChecks(t)
		for _, resource := range types {
			if now.trouble[resource] != before.trouble[resource] {
				t.Fatalf("consistency check of %s failed: %+v, before %+v", resource, now, before)
			}
			if now.success[resource] < before.success[resource]+rounds {
				return fmt.Errorf("%s passed %v checks, before %v", resource, now.success[resource], before.success[resource])
			}
		}
		return nil
	})
}
