package nfqueue

import "errors"

// What Open and Held.Judge return, to be matched with errors.Is.
var (
	// ErrBusy: another socket has bound the queue. One queue has one reader.
	// The kernel says EPERM for that, as it does for a lack of privileges;
	// Open tells the two apart.
	ErrBusy = errors.New("queue is bound by another socket")

	// ErrPermission: the process lacks CAP_NET_ADMIN in the user namespace
	// that owns its network namespace.
	ErrPermission = errors.New("CAP_NET_ADMIN is needed")

	// ErrUnsupported: the kernel has no nfnetlink_queue, or not a flag that the
	// Config asks for; the message names it.
	ErrUnsupported = errors.New("not supported by this kernel")

	// ErrClosed: the queue was closed; a packet held got Config.Default.
	ErrClosed = errors.New("queue is closed")

	// ErrJudged: the packet has its verdict already.
	ErrJudged = errors.New("packet has its verdict already")

	// ErrPayload: a replacement longer than MaxPayload, or an empty one.
	ErrPayload = errors.New("replaced payload is empty or too long")
)

// What an Event's Err is. None of them ends Serve.
var (
	// ErrOverrun: packets were lost between the kernel's queue and the socket,
	// because its receive buffer was full. The kernel dropped them, or let them
	// pass when Config.FailOpen is set. Answer: more Config.ReadBuffer, more
	// queues, a faster handler.
	ErrOverrun = errors.New("socket buffer overrun")

	// ErrFlushed: a verdict came too late, the packet was no longer queued. The
	// kernel drops what is queued when a hook or table is removed (a ruleset is
	// rebuilt), when a device goes down, and when a queue is unbound.
	ErrFlushed = errors.New("packet was flushed from the queue")

	// ErrVanished: the queue itself was gone, and has been bound again.
	ErrVanished = errors.New("queue vanished")

	// ErrRefused: the kernel refused a verdict for another reason, which the
	// Event's Errno tells.
	ErrRefused = errors.New("verdict refused")

	// ErrMalformed: a message that is not as the kernel writes them. If it
	// had an id, that packet got Config.Default.
	ErrMalformed = errors.New("malformed message")
)
