package kernel

import (
	"errors"
	"fmt"
)

// CharDevice is a range of character devices: struct char_device_struct.
type CharDevice struct {
	Major, Minor, Minors int
	Name                 string
	Cdev                 Addr // struct cdev, 0 when each minor number has its own
	Ops                  Addr // struct file_operations
}

// BlockMajor is a major number of block devices: struct blk_major_name.
type BlockMajor struct {
	Major int
	Name  string
}

// Disk is a disk: struct gendisk.
type Disk struct {
	Object
	Major, Minor int
	Name         string
	Ops          Addr // struct block_device_operations
	Queue        Addr // struct request_queue
	// Reads and Writes are the requests under way; InFlight says whether they are known,
	// as they are for disks that blk-mq serves.
	Reads, Writes int
	InFlight      bool
}

// maxDevices bounds each list of devices.
const maxDevices = 1 << 16

// hashed walks the chains of a table of pointers that a symbol names, each element
// beginning with the next one's address.
func (k *Kernel) hashed(symbol, typ string, visit func(Object) error) error {
	const heads = 255 // CHRDEV_MAJOR_HASH_SIZE, BLKDEV_MAJOR_HASH_SIZE, and of struct kobj_map
	at, err := k.Symbol(symbol)
	if err != nil {
		return err
	}
	return k.hashedAt(at, heads, typ, visit)
}

func (k *Kernel) hashedAt(table Addr, heads int, typ string, visit func(Object) error) error {
	zero, err := k.Object(typ, 0)
	if err != nil {
		return err
	}
	raw, err := k.Slice(table, 8*heads)
	if err != nil {
		return err
	}
	seen := map[Addr]int{} // the chain that each was in
	for i := range heads {
		for at := Addr(le.Uint64(raw[8*i:])); at != 0; {
			chain, before := seen[at]
			if before && chain == i || len(seen) == maxDevices {
				return fmt.Errorf("the chain at %s %v does not end: %w", typ, at, ErrCorrupt)
			}
			if before {
				break // chains of a struct kobj_map have the same end
			}
			seen[at] = i
			o := k.ObjectOf(zero.Type, at)
			if err := visit(o); err != nil {
				return err
			}
			if at, err = o.Pointer("next"); err != nil {
				return err
			}
		}
	}
	return nil
}

// dev_t has the minor number in its low bits (include/linux/kdev_t.h).
const minorBits = 20

// CharDevices returns the character devices by hash of their major number. What could be
// read comes with the error.
func (k *Kernel) CharDevices() ([]CharDevice, error) {
	cdevs, mapErr := k.mapped("cdev_map")
	var list []CharDevice
	err := k.hashed("chrdevs", "char_device_struct", func(o Object) error {
		d := CharDevice{}
		major, err := o.Uint("major")
		if err != nil {
			return err
		}
		minor, err := o.Uint("baseminor")
		if err != nil {
			return err
		}
		minors, err := o.Int("minorct")
		if err != nil {
			return err
		}
		d.Major, d.Minor, d.Minors = int(major), int(minor), int(minors)
		if d.Name, err = o.String("name"); err != nil {
			return err
		}
		if d.Cdev, err = o.Pointer("cdev"); err != nil {
			return err
		}
		if d.Cdev == 0 {
			d.Cdev = cdevs[major<<minorBits|minor]
		}
		if d.Cdev != 0 {
			cdev, err := k.Object("cdev", d.Cdev)
			if err != nil {
				return err
			}
			if d.Ops, err = cdev.Pointer("ops"); err != nil {
				return err
			}
		}
		list = append(list, d)
		return nil
	})
	if err == nil {
		err = mapErr
	}
	if err != nil {
		err = fmt.Errorf("list the character devices: %w", err)
	}
	return list, err
}

// mapped returns what a struct kobj_map holds, by dev_t.
func (k *Kernel) mapped(symbol string) (map[uint64]Addr, error) {
	at, err := k.Symbol(symbol)
	if err != nil {
		return nil, err
	}
	table, err := k.Pointer(at)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", symbol, err)
	}
	o, err := k.Object("kobj_map", table)
	if err != nil {
		return nil, err
	}
	probes, err := o.AddrOf("probes")
	if err != nil {
		return nil, err
	}
	found := map[uint64]Addr{}
	err = k.hashedAt(probes, 255, "probe", func(p Object) error {
		dev, err := p.Uint("dev")
		if err != nil {
			return err
		}
		data, err := p.Pointer("data")
		if err == nil && data != 0 {
			if _, known := found[dev]; !known { // the narrowest range comes first
				found[dev] = data
			}
		}
		return err
	})
	return found, err
}

// BlockMajors returns the major numbers that block devices have.
func (k *Kernel) BlockMajors() ([]BlockMajor, error) {
	var list []BlockMajor
	err := k.hashed("major_names", "blk_major_name", func(o Object) error {
		major, err := o.Int("major")
		if err != nil {
			return err
		}
		name, err := o.String("name")
		list = append(list, BlockMajor{int(major), name})
		return err
	})
	if err != nil {
		err = fmt.Errorf("list the block devices: %w", err)
	}
	return list, err
}

// Disks returns the disks. What could be read comes with the error.
func (k *Kernel) Disks() ([]Disk, error) {
	addrs, err := k.diskAddrs()
	errs := []error{err}
	var list []Disk
	for _, at := range addrs {
		o, err := k.Object("gendisk", at)
		if err != nil {
			return list, err
		}
		d := Disk{Object: o}
		if err := d.read(); err != nil && len(errs) < 8 {
			errs = append(errs, fmt.Errorf("gendisk %v: %w", at, err))
		}
		list = append(list, d)
	}
	return list, errors.Join(errs...)
}

// diskAddrs finds the disks: by the inodes of all block devices, which since 5.11 live as
// long as the device (commit 22ae8ce8b892), and in bdev_map before.
func (k *Kernel) diskAddrs() ([]Addr, error) {
	seen := map[Addr]bool{0: true}
	var list []Addr
	add := func(disk Addr) {
		if !seen[disk] {
			seen[disk] = true
			list = append(list, disk)
		}
	}
	if _, err := k.Symbol("bdev_map"); err == nil {
		disks, err := k.mapped("bdev_map")
		for _, disk := range disks {
			add(disk)
		}
		return list, err
	}
	inodes, err := k.blockInodes()
	if errors.Is(err, ErrNoSymbol) {
		return nil, nil // without CONFIG_BLOCK
	}
	if err != nil {
		return nil, err
	}
	for inode, err := range inodes {
		if err == nil && len(list) == maxDevices {
			err = fmt.Errorf("more than %d: %w", maxDevices, ErrCorrupt)
		}
		if err != nil {
			return list, fmt.Errorf("list the disks: %w", err)
		}
		bdev, err := k.ContainerOf(inode.Addr, "bdev_inode", "vfs_inode")
		if err != nil {
			return list, err
		}
		disk, err := bdev.Pointer("bdev.bd_disk")
		if err != nil {
			return list, err
		}
		add(disk)
	}
	return list, nil
}

func (d *Disk) read() error {
	major, err := d.Int("major")
	if err != nil {
		return err
	}
	minor, err := d.Int("first_minor")
	if err != nil {
		return err
	}
	d.Major, d.Minor = int(major), int(minor)
	if d.Name, err = d.String("disk_name"); err != nil {
		return err
	}
	if d.Ops, err = d.Pointer("fops"); err != nil {
		return err
	}
	if d.Queue, err = d.Pointer("queue"); err != nil || d.Queue == 0 {
		return err
	}
	return d.countRequests()
}

// countRequests counts the requests that blk-mq has given to the driver.
func (d *Disk) countRequests() error {
	const inFlight = 1 // MQ_RQ_IN_FLIGHT, include/linux/blk-mq.h
	const maxTags = 1 << 16
	k := d.k
	q, err := k.Object("request_queue", d.Queue)
	if err != nil {
		return err
	}
	if ops, err := q.Pointer("mq_ops"); err != nil || ops == 0 {
		return err
	}
	contexts, err := k.hardwareQueues(q)
	if err != nil {
		return err
	}
	seen := map[Addr]bool{}
	for _, at := range contexts {
		hctx, err := k.Object("blk_mq_hw_ctx", at)
		if err != nil {
			return err
		}
		tags, err := hctx.Pointer("tags")
		if err != nil {
			return err
		}
		if tags == 0 || seen[tags] {
			continue
		}
		seen[tags] = true
		o, err := k.Object("blk_mq_tags", tags)
		if err != nil {
			return err
		}
		n, err := o.Uint("nr_tags")
		if err != nil {
			return err
		}
		requests, err := o.Pointer("static_rqs")
		if err != nil {
			return err
		}
		if n > maxTags {
			return fmt.Errorf("%d tags: %w", n, ErrCorrupt)
		}
		for i := range n {
			at, err := k.Pointer(requests + Addr(8*i))
			if err != nil {
				return err
			}
			rq, err := k.Object("request", at)
			if err != nil {
				return err
			}
			state, err := rq.Uint("state")
			if err != nil {
				return err
			}
			queue, err := rq.Pointer("q")
			if err != nil {
				return err
			}
			if state != inFlight || queue != d.Queue {
				continue
			}
			op, err := rq.Uint("cmd_flags")
			if err != nil {
				return err
			}
			if op&1 == 1 { // REQ_OP_WRITE and the others that give data to the device are odd
				d.Writes++
			} else {
				d.Reads++
			}
		}
	}
	d.InFlight = true
	return nil
}

// hardwareQueues returns the struct blk_mq_hw_ctx of a queue: in an xarray from 6.0 to
// 6.17, in an array before and after.
func (k *Kernel) hardwareQueues(q Object) ([]Addr, error) {
	const most = 8192
	var list []Addr
	if q.Has("hctx_table") {
		at, err := q.AddrOf("hctx_table")
		if err != nil {
			return nil, err
		}
		for e, err := range k.XArray(at) {
			if err == nil && len(list) == most {
				err = fmt.Errorf("more than %d hardware queues: %w", most, ErrCorrupt)
			}
			if err != nil {
				return nil, err
			}
			if p, ok := e.Pointer(); ok {
				list = append(list, p)
			}
		}
		return list, nil
	}
	n, err := q.Uint("nr_hw_queues")
	if err != nil {
		return nil, err
	}
	table, err := q.Pointer("queue_hw_ctx")
	if err != nil {
		return nil, err
	}
	for i := range min(n, most) {
		at, err := k.Pointer(table + Addr(8*i))
		if err != nil {
			return nil, err
		}
		if at != 0 {
			list = append(list, at)
		}
	}
	return list, nil
}
