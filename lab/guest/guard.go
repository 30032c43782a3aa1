//go:build linux

package guest

import (
	"context"
	"fmt"

	"inquest/guard"
)

// guardFile is where the host puts the shield's module.
const guardFile = "/guard/" + guard.ModuleName + ".ko"

// raiseGuard puts the shield of option "guard" up, in the namespace whose rules queue,
// and says what it did.
func (s *story) raiseGuard(n *netns) error {
	switch s.Option("guard") {
	case "rule":
		s.Step("put carve-outs before the rules that queue")
		return n.do(func() error {
			r, err := guard.ApplyRules(context.Background())
			if err != nil {
				return fmt.Errorf("apply the rules: %w", err)
			}
			s.Fact("guard_rules", r.Points)
			if r.Open() {
				return fmt.Errorf("rules are not shielded: %+v", r.Points)
			}
			return nil
		})
	case "hook":
		s.Step("load the kernel module")
		return guard.Load(guardFile)
	}
	return nil
}

// reportGuard says what the shield has saved.
func (s *story) reportGuard(n *netns) error {
	switch s.Option("guard") {
	case "rule":
		return n.do(func() error {
			r, err := guard.ReadRules(context.Background())
			if err == nil {
				s.Fact("guard_passed", r.Passed())
			}
			return err
		})
	case "hook":
		h, err := guard.ReadHook()
		if err == nil {
			s.Fact("guard_hook", h)
		}
		return err
	}
	return nil
}
