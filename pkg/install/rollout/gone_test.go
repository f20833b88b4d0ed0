package rollout

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// A definition whose objects the API server could not delete at first is touched, so that it
// tries again; others are left to it.
func TestRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const head = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
		stuck := object(t, head+"metadata: {name: stuck}\nstatus: {conditions: [{type: Established, status: 'True'}, {type: Terminating, status: 'True', reason: InstanceDeletionFailed}]}")
		going := object(t, head+"metadata: {name: going}\nstatus: {conditions: [{type: Terminating, status: 'True', reason: InstanceDeletionInProgress}]}")
		c := &fake{stuck, going}
		begun := time.Now()
		err := Removed(t.Context(), c, "", time.Minute, func(_ context.Context, u *unstructured.Unstructured) error {
			if u != stuck {
				t.Errorf("%s is touched", u.GetName())
			}
			*c = nil // the other one has gone by itself meanwhile
			return nil
		})
		if took := time.Since(begun); err != nil || took > 2*touchEvery {
			t.Errorf("%v after %s", err, took)
		}
		*c = fake{going}
		if err := Removed(t.Context(), c, "", time.Minute, nil); err == nil {
			t.Error("what stays is said to be removed")
		}
	})
}
