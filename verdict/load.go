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
	if problems.Problems = sorted(problems.Problems); len(problems.Problems) > 0 {
		return nil, problems
	}
	return &File{Path: path, Text: text, Config: config, Rules: rules}, nil
}
