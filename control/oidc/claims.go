package oidc

import (
	"errors"
	"fmt"
	"strings"

	"millrace/control"
)

// claims are what a provider says of a person, by name.
type claims map[string]any

// find is the claim of a name, or of a path to a member of one that is an object, such as realm_access.roles: a name may have dots of its own, and the longest
// that is there counts.
func (c claims) find(path string) (value any, there bool) {
	if value, there = c[path]; there {
		return value, true
	}
	for i := len(path) - 1; i > 0; i-- {
		if path[i] != '.' {
			continue
		}
		if within, ok := c[path[:i]].(map[string]any); ok {
			if value, there = claims(within).find(path[i+1:]); there {
				return value, true
			}
		}
	}
	return nil, false
}

// add adds what others say beside these, also within objects. What these say stays.
func (c claims) add(others claims) {
	for name, value := range others {
		own, there := c[name]
		if !there {
			c[name] = value
			continue
		}
		if within, ok := own.(map[string]any); ok {
			if more, ok := value.(map[string]any); ok {
				claims(within).add(more)
			}
		}
	}
}

// suffice reports whether they say who somebody is here: a name, and each of the claims.
func (c Config) suffice(all claims) bool {
	for _, path := range []string{c.RoleClaim, c.AccountClaim} {
		if _, there := all.find(path); !there && path != "" {
			return false
		}
	}
	return len(all.names()) > 1
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

// values are those of a claim: a text, or a list of texts. Others are an error, as what they mean is not known.
func (c claims) values(path string) (all []string, there bool, err error) {
	value, there := c.find(path)
	switch v := value.(type) {
	case nil:
		return nil, there, nil
	case string:
		return []string{v}, true, nil
	case []any:
		for _, one := range v {
			text, ok := one.(string)
			if !ok {
				return nil, true, fmt.Errorf("%s is a list with %s", path, kindOf(one))
			}
			all = append(all, text)
		}
		return all, true, nil
	}
	return nil, there, fmt.Errorf("%s is %s", path, kindOf(value))
}

// kindOf says of what kind a value is.
func kindOf(value any) string {
	switch value.(type) {
	case nil:
		return "nothing"
	case bool:
		return "true or false"
	case string:
		return "a text"
	case []any:
		return "a list"
	case map[string]any:
		return "an object"
	}
	return "a number"
}

// who is what a provider knows somebody as, for the beginning of a refusal.
func (c Config) who(all claims) string {
	return fmt.Sprintf("the OpenID Connect provider %s knows you as %s", c.Issuer, Brief(all.names()[0]))
}

// role is the greatest that the claims give, else the default. The error is an *Error with ErrNoRole, and says whom to ask for what.
func (c Config) role(all claims) (role control.Role, err error) {
	values, there, err := all.values(c.RoleClaim)
	if err != nil {
		return 0, &Error{ErrNoRole, fmt.Sprintf("%s, and you have no role here: its claim %s; want a text or a list of texts. Ask an admin to have it sent so, or to name another claim (oidc-role-claim)", c.who(all), err)}
	}
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
	if there {
		why = fmt.Sprintf("your %s are %s. Ask an admin to give one of them a role (oidc-roles), or to give you one that has", c.RoleClaim, quoted(values))
	}
	return 0, &Error{ErrNoRole, fmt.Sprintf("%s, and you have no role here: %s", c.who(all), why)}
}

// account is the one that somebody of a role is bound to; empty for admins, who are not bound, and without an account claim. A person without that claim is
// refused, as without it they would see the data of all. The error is an *Error with ErrNoRole.
func (c Config) account(all claims, role control.Role) (string, error) {
	if c.AccountClaim == "" {
		return "", nil
	}
	refused := func(format string, args ...any) (string, error) {
		return "", &Error{ErrNoRole, fmt.Sprintf("%s, and which account you are of is not known: %s. Ask an admin to have the claim sent, or to name another one (oidc-account-claim)", c.who(all), fmt.Sprintf(format, args...))}
	}
	values, there, err := all.values(c.AccountClaim)
	switch {
	case err != nil:
		return refused("its claim %s; want a text", err)
	case len(values) == 0 && role == control.Admin:
		return "", nil
	case !there:
		return refused("it sends no claim %s", c.AccountClaim)
	case len(values) != 1:
		return refused("your %s are %s; want one", c.AccountClaim, quoted(values))
	}
	if err := control.CheckAccount(values[0], role); values[0] == "" || err != nil {
		if err == nil {
			err = errors.New("want the account of a tenant")
		}
		return refused("your %s is %s: %s", c.AccountClaim, quoted(values), err)
	}
	return values[0], nil
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
