package lms

import (
	"time"

	"millrace/caliper"
	"millrace/etl"
)

// Enrollment is a person's membership of a section: its newest version.
type Enrollment struct {
	MembershipID *string    `avro:"membershipId"`
	MemberID     string     `avro:"memberId"`
	SectionID    string     `avro:"sectionId" doc:"the organization: a section, or a course where the application enrols in courses"`
	CourseID     *string    `avro:"courseId"`
	Roles        []string   `avro:"roles" doc:"as the application spells them"`
	Role         *string    `avro:"role" doc:"the first role, as a term"`
	Status       *string    `avro:"status" doc:"Active, Inactive, Deleted"`
	ModifiedAt   *time.Time `avro:"modifiedAt"`
}

var enrollments = etl.Table[Enrollment]{
	Name: "enrollment",
	Doc:  "memberships of sections, in their newest version",
	From: etl.Entities(caliper.Membership),
	Map: func(r *etl.Reader) (Enrollment, error) {
		return Enrollment{
			MembershipID: etl.Opt[string](r, "entity.@id"),
			MemberID:     r.String("entity.member.@id"),
			SectionID:    r.String("entity.organization.@id"),
			CourseID:     etl.Opt[string](r, "entity.organization.subOrganizationOf.@id"),
			Roles:        r.Strings("entity.roles", nil),
			Role:         etl.OptTerm(r, "entity.roles.0|entity.roles"),
			Status:       etl.OptTerm(r, "entity.status"),
			ModifiedAt:   etl.Opt[time.Time](r, "entity.dateModified"),
		}, nil
	},
}
