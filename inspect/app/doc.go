// Package app learns from a flow's payload what the application is and says: the name
// in a TLS or QUIC hello, the host of an HTTP request, the names of a DNS query, the
// banner of an SSH server.
//
// An [Inspection] joins all analyzers for one flow. It is shown payload, in order and
// in pieces of any size, and fills [Facts]. Each field has its own state: a rule on
// tls.sni can be decided with the ClientHello, while the server's choice is yet to come.
//
// [Fields] has the facts by the names that rules use. [Patterns] searches payload for
// byte strings and expressions.
package app
