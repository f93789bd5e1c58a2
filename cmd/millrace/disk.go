package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"
)

// minFree is how much free space a stack needs. With less it stops while everything it holds can still be written: stores that meet a
// full disk in the middle of a flush do not all end well.
const minFree = 128 << 20

var errDiskFull = errors.New("nothing that was acknowledged is lost: free some space and start again")

// checkDisk returns an error when the disk of the data directory is nearly full.
func (d *dataDir) checkDisk() error {
	free, err := d.free()
	if err != nil {
		return err
	}
	if free < minFree {
		return fmt.Errorf("the disk of data directory %s is full but for %d MB, and %d MB are needed; %w", d.path, free>>20, minFree>>20, errDiskFull)
	}
	return nil
}

// hasRoomFor returns an error when so many bytes in a folder would leave the data directory, if it is on the same disk, with too little.
func (d *dataDir) hasRoomFor(folder string, bytes int64) error {
	var there, here syscall.Stat_t
	if err := errors.Join(syscall.Stat(folder, &there), syscall.Stat(d.path, &here)); err != nil {
		return fmt.Errorf("look for free space in %s: %w", folder, err)
	}
	free, err := d.free()
	if err != nil || there.Dev != here.Dev || bytes < 0 || free >= uint64(bytes)+2*minFree {
		return err
	}
	return fmt.Errorf("%s is on the disk of data directory %s, of which %d MB are free: %d MB more would stop what runs there; free some space, or name a folder on another disk", folder, d.path, free>>20, bytes>>20)
}

// free is how many bytes the disk of the data directory has left.
func (d *dataDir) free() (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.path, &st); err != nil {
		return 0, fmt.Errorf("look for free space in %s: %w", d.path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil //nolint:gosec // a block size is positive
}

// watchDisk returns an error as soon as the disk is nearly full, and nil when ctx ends.
func (d *dataDir) watchDisk(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := d.checkDisk(); err != nil {
				return err
			}
		}
	}
}
