package guard

import (
	"context"
	"errors"
)

// Status is how the machine stands: whether it takes a shield, and which are in force.
type Status struct {
	Release string `json:"release"` // of the kernel
	Needed  bool   `json:"needed"`  // it takes a shield
	Why     string `json:"why"`
	// Rules are those that queue in the network namespace that was looked at.
	Rules *Rules `json:"rules"`
	Hook  *Hook  `json:"hook"` // nil if the module is not loaded
	// Safe says that nothing is to be done: the kernel takes no shield, or has one. A carve-out is
	// one for its network namespace only, the hook for all.
	Safe bool `json:"safe"`
}

// ReadStatus looks at the running kernel, at the rules in the network namespace of the
// calling thread, and at the module.
func ReadStatus(ctx context.Context) (*Status, error) {
	s := &Status{}
	var err error
	if s.Release, err = Release(); err != nil {
		return nil, err
	}
	s.Needed, s.Why = Needed(Exposed())
	if s.Rules, err = ReadRules(ctx); err != nil {
		return nil, err
	}
	switch h, err := ReadHook(); {
	case err == nil:
		s.Hook = &h
	case !errors.Is(err, ErrNoHook):
		return nil, err
	}
	s.Safe = !s.Needed || s.Hook != nil || !s.Rules.Open()
	return s, nil
}
