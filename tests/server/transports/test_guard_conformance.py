"""Tests of conformance, run once more with a guard before the native front."""

import pytest

from tests.server.transports import test_conformance as general
from tests.server.transports import test_conformance_clients as clients
from tests.server.transports import test_conformance_connections as connections
from tests.server.transports import test_conformance_departures as departures
from tests.server.transports import test_conformance_messages as messages

AGAIN = (
    general.test_call_knows_who_calls,
    general.test_cancelled_while_queued_costs_no_compute,
    general.test_classify_of_several_images_answers_each_in_order,
    general.test_draining_server_answers_what_is_in_flight_and_refuses_the_rest,
    general.test_message_over_the_limit_is_refused_with_the_limit,
    general.test_new_version_takes_over_without_a_failed_call,
    general.test_unknown_method_is_unimplemented_and_names_what_exists,
    clients.test_h2load_has_every_call_answered,
    clients.test_limit_of_a_message_is_the_largest_that_is_taken,
    clients.test_message_of_an_error_keeps_every_letter,
    clients.test_request_and_answer_larger_than_any_window_are_whole,
    connections.test_calls_beyond_the_limit_of_a_connection_are_refused_unharmed,
    connections.test_calls_that_are_reset_at_once_are_bounded,
    connections.test_data_after_the_end_does_not_hurt_the_next_call,
    connections.test_empty_data_without_end_is_bounded,
    connections.test_flood_of_small_frames_holds_up_nobody,
    connections.test_headers_without_end_hold_up_nobody,
    connections.test_mistake_is_taken_alike,
    connections.test_silent_connections_keep_nobody_waiting,
    connections.test_what_is_no_http2_is_hung_up_on,
    departures.test_answer_waits_for_a_reader_and_holds_up_nobody,
    departures.test_call_that_is_reset_half_sent_is_never_begun,
    departures.test_connection_that_breaks_takes_its_calls_from_the_queue,
    departures.test_deadline_is_the_servers_too,
    departures.test_drain_answers_on_a_connection_that_stays_open,
    departures.test_reset_call_frees_its_space_in_the_queue,
    messages.test_message_is_taken_alike,
    messages.test_message_that_dribbles_in_is_answered,
)
globals().update({test.__name__: test for test in AGAIN})


@pytest.fixture
def front() -> str:
    return "guarded"
