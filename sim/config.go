package sim

import (
	"fmt"
	"hash/fnv"
	"time"
)

// Config describes a district. Two districts with equal Configs send the same bytes.
type Config struct {
	Seed uint64 // default 1

	// Start is the virtual time of the first post; its location is the district's time zone, one offset all the year.
	// Default Monday 2026-09-14, 7:55 a.m., five hours behind UTC: five minutes before the first period.
	Start time.Time

	Students    int // default 2000
	Schools     int // default 4
	Courses     int // course offerings per school; default 8
	SectionSize int // students per section; default 28. A course has two sections or more.
	Periods     int // school periods a student has a course in, each in another course; default 4, at most Courses and 7

	Irregular *Irregular // shares of irregular data; default DefaultIrregular()
}

// Irregular says how much of the data is irregular. Each field is a share between 0 and 1.
type Irregular struct {
	LateEntity  float64 // assignments and enrolments described after the first grade that needs them
	TwiceEntity float64 // entities described twice with the same bytes
	Changed     float64 // assignments described again with another title, later the same day
	Movers      float64 // students who move to another section of a course in the first five days
	Foreign     float64 // items in the other Caliper version than their sensor's
	Blended     float64 // items with 1.0 spelling outside and 1.1 spelling inside
	Bare        float64 // entity positions that hold a bare IRI instead of an object
	Padding     float64 // 1.0 items padded with null, {} and []; a twentieth of it for others
	Vendor      float64 // events with a vendor's extensions under a dotted key
	Blank       float64 // annotations with a blank node id
	NoEnd       float64 // sessions that just stop
	TimedOut    float64 // sessions that end by a time-out
	Delayed     float64 // event envelopes that come minutes after their turn
	VeryLate    float64 // event envelopes that come hours after their turn
	Redelivered float64 // envelopes that come again with the same bytes
	BadItem     float64 // items added to an envelope that a collector must quarantine
	Broken      float64 // payloads added that are no envelope at all
	Gzip        float64 // posts with a compressed body
}

// DefaultIrregular returns the shares that Config.Irregular defaults to.
func DefaultIrregular() *Irregular {
	return &Irregular{
		LateEntity: 0.1, TwiceEntity: 0.05, Changed: 0.05, Movers: 0.05,
		Foreign: 0.03, Blended: 0.04, Bare: 0.3, Padding: 0.7, Vendor: 0.08, Blank: 0.05,
		NoEnd: 0.05, TimedOut: 0.1,
		Delayed: 0.03, VeryLate: 0.003, Redelivered: 0.015, BadItem: 0.003, Broken: 0.002, Gzip: 0.2,
	}
}

func (c Config) withDefaults() Config {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	if c.Seed == 0 {
		c.Seed = 1
	}
	if c.Start.IsZero() {
		c.Start = time.Date(2026, time.September, 14, 7, 55, 0, 0, time.FixedZone("CDT", -5*60*60))
	}
	def(&c.Students, 2000)
	def(&c.Schools, 4)
	def(&c.Courses, 8)
	def(&c.SectionSize, 28)
	def(&c.Periods, min(4, c.Courses))
	if c.Irregular == nil {
		c.Irregular = DefaultIrregular()
	}
	return c
}

func (c Config) validate() error {
	for _, f := range []struct {
		name   string
		v      int
		lo, hi int
	}{
		{"Students", c.Students, 1, 400_000},
		{"Schools", c.Schools, 1, min(500, c.Students)},
		{"Courses", c.Courses, 1, 100},
		{"SectionSize", c.SectionSize, 1, 1000},
		{"Periods", c.Periods, 1, min(c.Courses, periodsPerDay)},
	} {
		if f.v < f.lo || f.v > f.hi {
			return fmt.Errorf("simulator: %s is %d; choose between %d and %d", f.name, f.v, f.lo, f.hi)
		}
	}
	for _, s := range c.Irregular.shares() {
		if !(s.v >= 0 && s.v <= 1) {
			return fmt.Errorf("simulator: Irregular.%s is %g; a share is between 0 and 1", s.name, s.v)
		}
	}
	return nil
}

type share struct {
	name string
	v    float64
}

func (i *Irregular) shares() []share {
	return []share{
		{"LateEntity", i.LateEntity},
		{"TwiceEntity", i.TwiceEntity},
		{"Changed", i.Changed},
		{"Movers", i.Movers},
		{"Foreign", i.Foreign},
		{"Blended", i.Blended},
		{"Bare", i.Bare},
		{"Padding", i.Padding},
		{"Vendor", i.Vendor},
		{"Blank", i.Blank},
		{"NoEnd", i.NoEnd},
		{"TimedOut", i.TimedOut},
		{"Delayed", i.Delayed},
		{"VeryLate", i.VeryLate},
		{"Redelivered", i.Redelivered},
		{"BadItem", i.BadItem},
		{"Broken", i.Broken},
		{"Gzip", i.Gzip},
	}
}

// fingerprint tells Configs apart whose posts differ. A State belongs to one.
func (c Config) fingerprint() string {
	h := fnv.New64a()
	_, offset := c.Start.Zone()
	fmt.Fprintf(h, "%d %d %d %d %d %d %d %d %d %+v", generation, c.Seed, c.Start.UnixMilli(), offset, c.Students, c.Schools, c.Courses,
		c.SectionSize, c.Periods, *c.Irregular)
	return fmt.Sprintf("%016x", h.Sum64())
}

// generation is raised when the same Config no longer gives the same bytes.
const generation = 1
