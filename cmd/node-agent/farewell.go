package main

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/kube"
)

// How long an agent that ends asks whether it comes again, and one question of it.
const (
	askingTime  = 6 * time.Second
	oneQuestion = 2 * time.Second
)

// farewell tells an agent that ends whether its DaemonSet is deleted. Only what the API
// says clearly counts as that: in doubt the agent comes again, and its pods stay
// captured. It also follows the object, for whoever deletes it deletes the right to
// ask, too, and often before the agent is told to end.
type farewell struct {
	api                  *kube.Client
	account              func() (*kube.Client, error) // asks as the account, whose token outlives the pod; or nil
	namespace, daemonSet string
	patience             time.Duration // for a clear answer
	log                  *slog.Logger

	mu    sync.Mutex
	heard answer // the last that was followed
}

// answer is what is known of the agent's DaemonSet.
type answer int

const (
	unclear answer = iota
	there          // the agent comes again
	deleted
)

// follow hears of the DaemonSet until ctx ends.
func (f *farewell) follow(ctx context.Context) error {
	kube.Follow(ctx, f.api, "/apis/apps/v1/namespaces/"+f.namespace+"/daemonsets", "metadata.name="+f.daemonSet, kube.Follower[kube.DaemonSet]{
		Replace: func(all []kube.DaemonSet) {
			a := deleted
			for _, d := range all {
				a = of(d.Meta)
			}
			f.hear(a)
		},
		Put:    func(d kube.DaemonSet) { f.hear(of(d.Meta)) },
		Delete: func(kube.DaemonSet) { f.hear(deleted) },
	}, f.log)
	return nil
}

func (f *farewell) hear(a answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = a
}

func (f *farewell) last() answer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.heard
}

func of(m kube.Meta) answer {
	if m.DeletionTimestamp != "" {
		return deleted
	}
	return there
}

// isUninstalled is asked once, when the agent ends.
func (f *farewell) isUninstalled(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		a, err := f.ask(ctx)
		// What was heard last speaks where the API does not: it was clear then.
		if a == unclear && f.last() == deleted {
			a = deleted
		}
		if a != unclear {
			return a == deleted
		}
		select {
		case <-ctx.Done():
			f.log.Error("the API does not say whether the agent's DaemonSet is deleted: all stays as it is, and pods of the mesh are refused until an agent is back. "+
				"If the mesh was uninstalled, run `node-agent uninstall` on this node", "err", err)
			return false
		case <-tick.C:
		}
	}
}

// ask is what the API says now. A namespace that goes takes the DaemonSet along.
func (f *farewell) ask(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, oneQuestion)
	defer cancel()
	a, err := f.askAs(ctx, f.api)
	if kube.IsUnauthorized(err) && f.account != nil {
		// The agent's token ends with its pod's object, which somebody may have deleted
		// by force; the account's own does not.
		api, cerr := f.account()
		if cerr != nil {
			return unclear, errors.Join(err, cerr)
		}
		a, err = f.askAs(ctx, api)
	}
	return a, err
}

func (f *farewell) askAs(ctx context.Context, api *kube.Client) (answer, error) {
	var set kube.DaemonSet
	err := api.Get(ctx, "/apis/apps/v1/namespaces/"+f.namespace+"/daemonsets/"+f.daemonSet, &set)
	if kube.IsNoSuch(err, "daemonsets", f.daemonSet) || err == nil && of(set.Meta) == deleted {
		return deleted, nil
	}
	var around kube.Namespace
	if nerr := api.Get(ctx, "/api/v1/namespaces/"+f.namespace, &around); nerr == nil && of(around.Meta) == deleted ||
		kube.IsNoSuch(nerr, "namespaces", f.namespace) {
		return deleted, nil
	}
	if err == nil && set.Name == f.daemonSet {
		return there, nil
	}
	if err == nil {
		err = errors.New("the answer is no DaemonSet")
	}
	return unclear, err
}
