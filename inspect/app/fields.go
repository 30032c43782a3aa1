package app

// FieldID numbers the fields that rules can name; it is a bit of a [FieldSet].
type FieldID uint8

// The fields, in the order of [Fields].
const (
	FieldProto FieldID = iota
	FieldGap
	FieldTLSSNI
	FieldTLSALPN
	FieldTLSVersion
	FieldTLSJA4
	FieldTLSECH
	FieldTLSServerVersion
	FieldTLSServerCipher
	FieldTLSServerALPN
	FieldQUICSNI
	FieldQUICALPN
	FieldQUICVersion
	FieldQUICJA4
	FieldQUICECH
	FieldHTTPMethod
	FieldHTTPHost
	FieldHTTPPath
	FieldHTTPUserAgent
	FieldHTTPStatus
	FieldDNSID
	FieldDNSResponse
	FieldDNSEDNS
	FieldDNSNames
	FieldDNSTypes
	FieldDNSRCode
	FieldDNSAnswers
	FieldSSHClient
	FieldSSHClientVersion
	FieldSSHClientSoftware
	FieldSSHServer
	FieldSSHServerVersion
	FieldSSHServerSoftware
	numFields
)

// FieldSet is a set of fields, one bit for each [FieldID].
type FieldSet uint64

// AllFields has every field.
const AllFields FieldSet = 1<<numFields - 1

// Set is the set of the given fields.
func Set(ids ...FieldID) FieldSet {
	var s FieldSet
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

// Has reports whether id is in the set.
func (s FieldSet) Has(id FieldID) bool { return s>>id&1 != 0 }

// Type is the type of a field's value.
type Type uint8

// The types; each says which accessor of a [Field] is set.
const (
	String  Type = iota // Field.String
	Strings             // Field.Strings
	Int                 // Field.Int
	Bool                // Field.Bool
)

// String is the type's name in messages.
func (t Type) String() string {
	return [...]string{"string", "list(string)", "int", "bool"}[t&3]
}

// Field is one fact as rules name it.
type Field struct {
	ID   FieldID
	Name string // "tls.sni"
	Type Type
	Doc  string // one line

	// PerMessage tells that the value changes from message to message of one flow
	// (requests of a kept-alive HTTP connection, DNS queries of one socket): it may
	// be known, but is final only when no further message can come.
	PerMessage bool

	// The one for Type is set. None allocates, and what Strings returns is not to
	// be changed.
	String  func(*Facts) string
	Strings func(*Facts) []string
	Int     func(*Facts) int64
	Bool    func(*Facts) bool
}

// Fields has every field, at the index of its ID.
var Fields = collect(flowFields, All)

// Lookup finds a field by its name, nil when there is none.
func Lookup(name string) *Field {
	for i := range Fields {
		if Fields[i].Name == name {
			return &Fields[i]
		}
	}
	return nil
}

// flowFields are those that are no one analyzer's.
var flowFields = []Field{
	{ID: FieldProto, Name: "app.proto", Type: String,
		Doc:    `the application protocol: "tls", "quic", "http", "http2", "dns", "ssh", or "" when unknown`,
		String: func(f *Facts) string { return f.Proto.String() }},
	{ID: FieldGap, Name: "app.gap", Type: Bool,
		Doc:        "bytes of the flow were not seen or a bound was reached: absent facts may be so for that reason",
		PerMessage: true,
		Bool:       func(f *Facts) bool { return f.Gap }},
}

func collect(first []Field, analyzers []*Analyzer) []Field {
	all := make([]Field, numFields)
	for _, f := range first {
		all[f.ID] = f
	}
	for _, a := range analyzers {
		for _, f := range a.Fields {
			all[f.ID] = f
		}
	}
	return all
}

// fieldSet is the set of the fields of a table.
func fieldSet(fields []Field) FieldSet {
	var s FieldSet
	for i := range fields {
		s |= 1 << fields[i].ID
	}
	return s
}
