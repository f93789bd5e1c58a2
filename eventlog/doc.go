// Package eventlog is the log that every item passes: a thin layer over a Kafka client.
//
// The one idea: one item is one Kafka record whose value is the item's exact bytes; what is known about it travels in the
// record's headers. Any Kafka tool can read the log, and whether the broker is the embedded one (eventlog/broker) or a
// real cluster is only an address.
//
//	header       value                                       when
//	account      tenant                                      always
//	env          the tenant's environment                    always
//	source_type  kind of input                               always
//	kind         event, entity or reject                     always
//	received_at  RFC 3339, UTC, up to nanoseconds            always
//	sensor       the envelope's sensor                       unless empty
//	id           id of the event or entity                   unless empty
//	data_version the envelope's dataVersion                  unless empty
//	send_time    the envelope's sendTime, as received_at     unless zero
//	reason       why it is a reject                          unless empty
//
// Items of one account, env and id go to one partition and stay in order there. There is no consumer group: whoever reads
// keeps the offsets, beside the state that the items made.
//
// Beside the log itself, a Writer writes any messages to other topics of the same cluster, in transactions.
//
// The package does not read envelopes (caliper), answer sensors (collect) or run the broker (eventlog/broker).
package eventlog
