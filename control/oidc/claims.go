package oidc

import (
	"fmt"
	"strings"

	"millrace/control"
)

// claims are what a provider says of a person, by name.
type claims map[string]any

// suffice reports whether they say a role and a name.
func (c claims) suffice(roleClaim string) bool {
	_, role := c[roleClaim]
	return role && len(c.names()) > 1
}

// names are what somebody may be called, the best first: the name of their account, their address if it is theirs, and at last what they are known by.
func (c claims) names() (all []string) {
	if name, _ := c["preferred_username"].(string); name != "" {
		all = append(all, name)
	}
	if email, _ := c["email"].(string); email != "" && (c["email_verified"] == true || c["email_verified"] == "true") {
		all = append(all, email)
	}
	subject, _ := c["sub"].(string)
	return append(all, subject)
}

// values are those of a claim: a string, or a list of strings.
func (c claims) values(name string) (all []string) {
	switch v := c[name].(type) {
	case string:
		return []string{v}
	case []any:
		for _, one := range v {
			if text, ok := one.(string); ok {
				all = append(all, text)
			}
		}
	}
	return all
}

// role is the greatest that the claims give, else the default. The error is an *Error with ErrNoRole, and says whom to ask for what.
func (c Config) role(all claims) (role control.Role, err error) {
	values := all.values(c.RoleClaim)
	for _, v := range values {
		role = max(role, c.Roles[v])
	}
	if role > 0 {
		return role, nil
	}
	if c.DefaultRole > 0 {
		return c.DefaultRole, nil
	}
	why := fmt.Sprintf("it sends no claim %s. Ask an admin to have it sent, or to name the one that is (oidc-role-claim)", c.RoleClaim)
	if _, ok := all[c.RoleClaim]; ok {
		why = fmt.Sprintf("your %s are %s. Ask an admin to give one of them a role (oidc-roles), or to give you one that has", c.RoleClaim, quoted(values))
	}
	return 0, &Error{ErrNoRole, fmt.Sprintf("the OpenID Connect provider %s knows you as %s, and you have no role here: %s", c.Issuer, Brief(all.names()[0]), why)}
}

// quoted lists values for people: not hundreds.
func quoted(values []string) string {
	const most = 10
	if len(values) == 0 {
		return "none"
	}
	var text []string
	for _, v := range values[:min(most, len(values))] {
		text = append(text, fmt.Sprintf("%q", v))
	}
	if len(values) > most {
		text = append(text, fmt.Sprintf("and %d more", len(values)-most))
	}
	return Brief(strings.Join(text, ", "))
}
