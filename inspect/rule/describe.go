package rule

// note is what was found out about a rule when it was compiled.
type note struct {
	constraints constraints
	place       found
	interpreted int
	variables   []*Variable
}

// Description says how a rule is judged.
type Description struct {
	Rule
	// Index is what the rule is found by, "" when every packet is held against it;
	// Shared is how many rules have that same key.
	Index  string `json:"index,omitempty"`
	Shared int    `json:"shared,omitempty"`
	// Interpreted is how many parts of the condition have no compiled form: they cost
	// microseconds and allocate.
	Interpreted int `json:"interpreted,omitempty"`
	// Facts are what the rule waits for.
	Facts []string `json:"facts,omitempty"`
	// KeepsQueued says what keeps flows that the rule could match in the queue: it may
	// differ from packet to packet. They are variables, or "pattern", "rate", "scope".
	// Without any the rule decides a flow once.
	KeepsQueued []string `json:"keeps_queued,omitempty"`
}

// Describe says of each rule how it is judged.
func (s *Set) Describe() []Description {
	all := make([]Description, len(s.rules))
	for i := range s.rules {
		all[i] = s.describe(i)
	}
	return all
}

func (s *Set) describe(i int) Description {
	n := &s.notes[i]
	d := Description{Rule: s.rules[i], Interpreted: n.interpreted}
	if n.place.dim != dimNone && !d.Disabled {
		d.Index, d.Shared = n.place.dim.String(), n.place.shared
	}
	for _, v := range n.variables {
		if v.Fact {
			d.Facts = append(d.Facts, v.Name)
		}
		if v.PerPacket || d.PerPacket && v.from&fromDevices != 0 {
			d.KeepsQueued = append(d.KeepsQueued, v.Name)
		}
	}
	if d.PerPacket && s.compiled[i].needs&fromTuple != 0 {
		d.KeepsQueued = append(d.KeepsQueued, "scope")
	}
	if s.compiled[i].needs&fromPatterns != 0 {
		d.KeepsQueued = append(d.KeepsQueued, "pattern")
	}
	if d.Rate != nil {
		d.KeepsQueued = append(d.KeepsQueued, "rate")
	}
	return d
}

// finish places the rules in the indexes and prepares their limits.
func (s *Set) finish() {
	var byFlow, byPacket, restless []int32
	of := make([]constraints, len(s.rules))
	var table *bucketTable
	for i := range s.rules {
		rule, r := &s.rules[i], &s.compiled[i]
		of[i] = s.notes[i].constraints
		if rule.Disabled {
			continue
		}
		if rule.Rate != nil {
			if table == nil && rule.Rate.Of != PerRule {
				table = newBucketTable()
			}
			r.limit, s.limits = newLimiter(*rule.Rate, i, table), true
		}
		if rule.PerPacket {
			r.view = asPacket
			byPacket = append(byPacket, int32(i))
		} else {
			r.needs &^= fromTuple | fromDevices
			byFlow = append(byFlow, int32(i))
			if r.limit != nil || r.needs&(fromPacket|fromPatterns) != 0 {
				restless = append(restless, int32(i))
			}
		}
		s.needs |= r.needs
	}
	places := make([]found, len(s.rules))
	s.restless = newIndex(restless, of, places)
	s.byFlow = newIndex(byFlow, of, places)
	if len(byPacket) > 0 {
		s.byPacket = newIndex(byPacket, of, places)
	}
	for i := range s.notes {
		s.notes[i].place = places[i]
	}
}
