package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// QMP speaks the QEMU machine protocol. It is safe for concurrent use; commands run
// one after the other.
type QMP struct {
	mu   sync.Mutex
	conn net.Conn
	in   *json.Decoder
	err  error // that broke the connection
}

// QMPError is QEMU's refusal of a command.
type QMPError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *QMPError) Error() string { return e.Desc }

// ErrNotQMP is the error for a peer that does not greet as QEMU does.
var ErrNotQMP = errors.New("peer does not speak QMP")

// NewQMP takes QEMU's greeting from a connection, and ends the phase of negotiation.
// It closes the connection if that fails.
func NewQMP(ctx context.Context, conn net.Conn) (*QMP, error) {
	q := &QMP{conn: conn, in: json.NewDecoder(conn)}
	var greeting struct {
		QMP *struct{} `json:"QMP"`
	}
	stop := q.interruptBy(ctx)
	err := q.in.Decode(&greeting)
	stop()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil && greeting.QMP == nil:
		err = ErrNotQMP
	case err == nil:
		err = q.Run(ctx, "qmp_capabilities", nil, nil)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet QEMU: %w", err)
	}
	return q, nil
}

// Run runs a command. Arguments and result are marshalled as JSON; either may be nil.
// A refusal is a *QMPError. When the context ends meanwhile, the connection is of no
// more use.
func (q *QMP) Run(ctx context.Context, command string, arguments, result any) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.run(ctx, command, arguments, result); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	return nil
}

func (q *QMP) run(ctx context.Context, command string, arguments, result any) error {
	if q.err != nil {
		return q.err
	}
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return err
	}
	stop := q.interruptBy(ctx)
	defer stop()
	if _, err := q.conn.Write(append(request, '\n')); err != nil {
		return q.broken(ctx, err)
	}
	for {
		var answer struct {
			Return json.RawMessage `json:"return"`
			Error  *QMPError       `json:"error"`
		}
		if err := q.in.Decode(&answer); err != nil {
			return q.broken(ctx, err)
		}
		switch {
		case answer.Error != nil:
			return answer.Error
		case answer.Return == nil: // an event, which may come at any time
			continue
		case result != nil:
			return json.Unmarshal(answer.Return, result)
		}
		return nil
	}
}

// broken notes that the connection is out of step.
func (q *QMP) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	q.err = err
	return err
}

// interruptBy has reads and writes fail once the context ends, until stop is called.
func (q *QMP) interruptBy(ctx context.Context) (stop func()) {
	unregister := context.AfterFunc(ctx, func() { q.conn.SetDeadline(time.Unix(1, 0)) })
	return func() { unregister() }
}

// Close closes the connection.
func (q *QMP) Close() error { return q.conn.Close() }
