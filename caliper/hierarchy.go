package caliper

// super holds what each type of entity is a kind of, as the entity section of the Caliper Analytics specification has it
// (1.1 appendix C, 1.2 appendix C), with the types that only 1.0 has. Types not listed are kinds of Entity.
var super = map[string]string{
	Organization:        Agent,
	Person:              Agent,
	SoftwareApplication: Agent,

	CourseOffering: Organization,
	CourseSection:  Organization,
	Group:          Organization,

	AssignableDigitalResource: DigitalResource,
	Chapter:                   DigitalResource,
	Collection:                DigitalResource,
	DigitalResourceCollection: Collection,
	Document:                  DigitalResource,
	Forum:                     DigitalResourceCollection,
	Frame:                     DigitalResource,
	Link:                      DigitalResource,
	LtiLink:                   DigitalResource,
	MediaLocation:             DigitalResource,
	MediaObject:               DigitalResource,
	Message:                   DigitalResource,
	Page:                      DigitalResource,
	Questionnaire:             DigitalResourceCollection,
	QuestionnaireItem:         DigitalResource,
	Reading:                   DigitalResource,
	Survey:                    DigitalResourceCollection,
	SurveyInvitation:          DigitalResource,
	Thread:                    DigitalResourceCollection,
	WebPage:                   DigitalResource,

	Assessment:     AssignableDigitalResource,
	AssessmentItem: AssignableDigitalResource,

	AudioObject: MediaObject,
	ImageObject: MediaObject,
	VideoObject: MediaObject,

	BookmarkAnnotation:  Annotation,
	HighlightAnnotation: Annotation,
	SharedAnnotation:    Annotation,
	TagAnnotation:       Annotation,

	DateTimeQuestion:    Question,
	MultiselectQuestion: Question,
	OpenEndedQuestion:   Question,
	RatingScaleQuestion: Question,

	DateTimeResponse:         Response,
	FillinBlankResponse:      Response,
	MultipleChoiceResponse:   Response,
	MultipleResponseResponse: Response,
	MultiselectResponse:      Response,
	OpenEndedResponse:        Response,
	RatingScaleResponse:      Response,
	SelectTextResponse:       Response,
	TrueFalseResponse:        Response,

	LikertScale:      Scale,
	MultiselectScale: Scale,
	NumericScale:     Scale,

	LtiSession: Session,
}

// IsA reports whether an entity of type term is also one of type ofType: every type is itself and an Entity, an Assessment
// is an AssignableDigitalResource and a DigitalResource. Both may be IRIs of any version.
func IsA(term, ofType string) bool {
	term, ofType = Term(term), Term(ofType)
	for t := term; t != ""; t = super[t] {
		if t == ofType {
			return true
		}
	}
	return ofType == Entity && term != ""
}
