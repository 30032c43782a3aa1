package verdict

import (
	"errors"
	"fmt"
	"io"
	"os"

	"inquest/inspect/rule"
)

// File is a rule file that has nothing wrong.
type File struct {
	Path   string
	Text   []byte
	Config *Config
	Rules  *rule.Set
}

// Load reads a rule file. The error is a [*rule.Error] if its content is at fault.
func Load(path string) (*File, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, text)
}

// readFile reads no more than a rule file may have.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the rules: %w", err)
	}
	return text, nil
}

// Parse checks the text of a rule file; path is what errors call it. The error is a
// [*rule.Error] with the problems of the rules and of the section "daemon".
func Parse(path string, text []byte) (*File, error) {
	config, configErr := ParseConfig(path, text)
	rules, rulesErr := rule.Load(path, text)
	problems := &rule.Error{File: path}
	for _, err := range []error{configErr, rulesErr} {
		var e *rule.Error
		if errors.As(err, &e) {
			problems.Problems = append(problems.Problems, e.Problems...)
		} else if err != nil {
			return nil, err
		}
	}
	if configErr == nil && rulesErr == nil {
		problems.Problems = conflicts(config, rules)
	}
	if problems.Problems = sorted(problems.Problems); len(problems.Problems) > 0 {
		return nil, problems
	}
	return &File{Path: path, Text: text, Config: config, Rules: rules}, nil
}

// conflicts are verdicts of rules that the daemon would take for its own doing.
func conflicts(c *Config, rules *rule.Set) []rule.Problem {
	var list []rule.Problem
	for _, r := range rules.Rules() {
		v := r.Verdict
		problem := ""
		switch {
		case v.Kind == rule.Mark && v.Mark&uint32(c.Mark) != 0:
			problem = fmt.Sprintf("rule %s sets bits of the mark %#x, by which the daemon talks to the kernel; use others, or set daemon.mark", r.Name, uint32(c.Mark))
		case v.Kind == rule.Queue && v.Queue >= c.Queues.First && int(v.Queue)-int(c.Queues.First) < c.Queues.Count:
			problem = fmt.Sprintf("rule %s hands packets to queue %d, which is one of the daemon's own: they would come back for ever", r.Name, v.Queue)
		}
		if problem != "" {
			list = append(list, rule.Problem{Line: r.Line, Column: 1, Message: problem})
		}
	}
	return list
}
