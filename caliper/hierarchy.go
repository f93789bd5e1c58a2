package caliper

// supers holds what each type of entity is directly a kind of, as the entity sections of the Caliper Analytics specification
// have it (1.1 appendix C, for the types of the survey, search and tool-use profiles 1.2 appendix C). Types not listed are
// kinds of Entity alone. In the specification a CourseSection is also a CourseOffering; here it is not, so that what asks
// for courses does not get sections.
var supers = map[string][]string{
	Organization:        {Agent},
	Person:              {Agent},
	SoftwareApplication: {Agent},

	CourseOffering: {Organization},
	CourseSection:  {Organization},
	Group:          {Organization},

	AssignableDigitalResource: {DigitalResource},
	Chapter:                   {DigitalResource},
	Document:                  {DigitalResource},
	Frame:                     {DigitalResource},
	Link:                      {DigitalResource},
	LtiLink:                   {DigitalResource},
	MediaLocation:             {DigitalResource},
	MediaObject:               {DigitalResource},
	Message:                   {DigitalResource},
	Page:                      {DigitalResource},
	QuestionnaireItem:         {DigitalResource},
	Reading:                   {DigitalResource},
	SurveyInvitation:          {DigitalResource},
	WebPage:                   {DigitalResource},

	AggregateMeasureCollection: {Collection},
	DigitalResourceCollection:  {Collection, DigitalResource},
	Forum:                      {DigitalResourceCollection},
	Questionnaire:              {DigitalResourceCollection},
	Survey:                     {Collection},
	Thread:                     {DigitalResourceCollection},

	Assessment:     {AssignableDigitalResource, DigitalResourceCollection},
	AssessmentItem: {AssignableDigitalResource},

	AudioObject: {MediaObject},
	ImageObject: {MediaObject},
	VideoObject: {MediaObject},

	BookmarkAnnotation:  {Annotation},
	HighlightAnnotation: {Annotation},
	SharedAnnotation:    {Annotation},
	TagAnnotation:       {Annotation},

	DateTimeQuestion:    {Question},
	MultiselectQuestion: {Question},
	OpenEndedQuestion:   {Question},
	RatingScaleQuestion: {Question},

	DateTimeResponse:         {Response},
	FillinBlankResponse:      {Response},
	MultipleChoiceResponse:   {Response},
	MultipleResponseResponse: {Response},
	MultiselectResponse:      {Response},
	OpenEndedResponse:        {Response},
	RatingScaleResponse:      {Response},
	SelectTextResponse:       {Response},
	TrueFalseResponse:        {Response},

	LikertScale:      {Scale},
	MultiselectScale: {Scale},
	NumericScale:     {Scale},

	LtiSession: {Session},
}

// IsA reports whether an entity of type term is also one of type ofType: every type is itself and an Entity, an Assessment
// is an AssignableDigitalResource and a DigitalResource. Both may be IRIs of any version.
func IsA(term, ofType string) bool {
	term, ofType = Term(term), Term(ofType)
	return term != "" && (ofType == Entity || isA(term, ofType))
}

func isA(term, ofType string) bool {
	if term == ofType {
		return true
	}
	for _, super := range supers[term] {
		if isA(super, ofType) {
			return true
		}
	}
	return false
}
