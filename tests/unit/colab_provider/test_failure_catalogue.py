"""The failures that Colab's clients are known to have: each row has tests, or a reason why we cannot meet it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[2]

#: Row: what goes wrong, and the tests that show what is done about it.
CATALOGUE: dict[str, tuple[str, tuple[str, ...]]] = {
    "F1": (
        "a proxy token ends after an hour and the client forgets a machine that lives",
        (
            "test_f1_f2_a_refused_token_is_renewed_once_for_all_who_met_it",
            "test_f1_a_token_is_renewed_before_it_ends",
            "test_f1_an_address_that_changed_is_taken_over_with_the_token",
            "test_runs_with_gaps_longer_than_a_tokens_life_keep_their_variables",
            "test_a_run_that_is_longer_than_several_tokens_loses_no_line",
        ),
    ),
    "F2": (
        "errors are told apart by words in their text",
        ("test_each_status_has_one_meaning", "test_who_refused_is_seen_in_headers_and_body"),
    ),
    "F3": ("keep-alive is refused for foreign accounts", ("test_f3_pings_go_through_the_tunnel_with_what_it_wants",)),
    "F4": (
        "a ping that worked counts as failed",
        (
            "test_f4_a_ping_without_an_answer_has_worked",
            "test_f4_a_ping_that_could_not_be_sent_has_not_worked",
        ),
    ),
    "F5": (
        "nobody pings between two commands",
        (
            "test_a_machine_is_kept_while_it_is_used_and_released_when_it_is_forgotten",
            "test_status_tells_how_a_runtime_is_kept",
        ),
    ),
    "F6": (
        "a forgotten machine is pinged for ever",
        (
            "test_a_ping_is_only_sent_for_use_within_the_limits_and_never_more_often_than_allowed",
            "test_without_an_idle_limit_nobody_pings_a_forgotten_machine_for_ever",
        ),
    ),
    "F7": (
        "412 means two things",
        (
            "test_f7_412_with_other_runtimes_says_how_many_and_how_to_end_one",
            "test_f7_412_without_any_runtime_is_a_refusal_for_usage",
        ),
    ),
    "F8": (
        "503: no capacity",
        (
            "test_f8_no_capacity_is_told_with_the_way_to_wait",
            "test_the_ladder_is_tried_in_order_and_what_was_obtained_is_said",
            "test_waiting_goes_on_until_a_machine_is_free",
        ),
    ),
    "F9": (
        "400: not entitled",
        ("test_f9_a_card_that_the_account_may_not_have_is_refused_with_the_list_of_those_it_may",),
    ),
    "F10": (
        "a refusal inside a 200",
        (
            "test_f10_a_refusal_inside_a_200_is_read_before_anything_else",
            "test_f10_a_blocked_account_is_told_once_and_never_tried_again",
        ),
    ),
    "F11": (
        "an unknown name breaks the reader",
        (
            "test_f11_names_that_nobody_knows_are_listed_as_they_are",
            "test_both_dialects_and_names_that_are_new_become_one_hardware",
        ),
    ),
    "F12": (
        "a creation whose answer is lost leaves a phantom",
        (
            "test_f12_a_runtime_whose_answer_was_lost_is_adopted",
            "test_f12_a_question_that_never_arrived_is_put_again_after_its_time",
            "test_whatever_the_service_does_one_request_ends_with_at_most_one_runtime",
        ),
    ),
    "F13": (
        "one entry of a listing spoils the others",
        (
            "test_f36_f13_a_browsers_runtime_can_be_adopted_and_one_broken_entry_hides_no_other",
            "test_one_entry_that_cannot_be_read_does_not_hide_the_others",
        ),
    ),
    "F14": (
        "the memory shape is refused for some cards",
        ("test_f14_the_memory_shape_is_left_out_for_cards_that_have_no_choice",),
    ),
    "F15": ("figures are missing or quoted", ("test_f15_missing_and_quoted_figures_are_no_failure",)),
    "F16": (
        "a revoked sign-in loops",
        ("test_f16_a_revoked_sign_in_is_told_once_with_the_command_that_helps",),
    ),
    "F17": (
        "a stray 401 signs the user out",
        ("test_f17_a_stray_401_is_answered_by_one_refresh_and_nobody_is_signed_out",),
    ),
    "F18": (
        "partial consent means a new sign-in each hour",
        ("test_a_box_that_is_needed_and_not_ticked_is_named_and_nothing_is_kept",),
    ),
    "F19": ("too much is asked for", ("test_one_consent_signs_in_and_asks_for_the_core_scopes_alone",)),
    "F20": (
        "an own OAuth client is refused for its redirect",
        ("test_one_consent_signs_in_and_asks_for_the_core_scopes_alone",),
    ),
    "F21": (
        "drive.mount() hangs or fails",
        (
            "test_consent_is_asked_for_with_the_right_account_and_waited_for",
            "test_drive_is_mounted_once_the_user_has_agreed",
            "test_credentials_reach_a_runtime_after_consent",
        ),
    ),
    "F22": (
        "a propagation that fails leaves the kernel waiting",
        ("test_drive_is_not_mounted_where_the_front_end_reports_an_error",),
    ),
    "F23": ("secrets time out", ("test_code_gets_an_allowed_secret_and_its_value_is_nowhere_afterwards",)),
    "F24": (
        "files.upload() hangs",
        (
            "test_files_are_uploaded_in_pieces_under_names_that_are_free",
            "test_an_upload_where_nobody_can_be_asked_fails_with_the_way_out",
        ),
    ),
    "F25": ("authenticate_user() fails", ("test_credentials_go_to_a_runtime_after_consent",)),
    "F26": ("a silent cell is aborted", ("test_a_black_hole_in_the_middle_of_a_cell_loses_nothing",)),
    "F29": ("restart hangs", ("test_a_restart_is_told_and_leaves_a_fresh_kernel",)),
    "F30": (
        "a dead connection is not noticed",
        (
            "test_a_black_hole_is_noticed_within_a_few_seconds",
            "test_a_token_that_stays_refused_is_a_reason_to_reconnect",
        ),
    ),
    "F31": ("a second terminal kicks out the first", ("test_a_shell_that_was_left_is_there_when_one_comes_back",)),
    "F33": (
        "an untrusted certificate looks like a cut line",
        ("test_a_certificate_that_nobody_vouches_for_is_a_tls_error_with_a_way_out",),
    ),
    "F34": (
        "a machine without SSH looks like a token that ended",
        (
            "test_a_machine_made_without_ssh_has_no_tunnel",
            "test_a_bad_token_at_the_tunnel_is_told_from_a_machine_without_ssh",
        ),
    ),
    "F35": ("RSA keys are refused", ("test_only_modern_keys_are_taken",)),
    "F36": (
        "a browser's runtime cannot be used",
        (
            "test_f36_f13_a_browsers_runtime_can_be_adopted_and_one_broken_entry_hides_no_other",
            "test_foreign_runtimes_are_shown_and_never_released_unasked",
        ),
    ),
    "F37": ("the printed link does not attach", ("test_f37_the_link_for_a_browser_has_both_forms",)),
    "F38": ("Jupyter through the tunnel hangs", ("test_f38_jupyter_is_never_asked_through_the_tunnel",)),
    "F39": (
        "the proxy's name does not resolve",
        ("test_a_runtime_that_died_is_replaced_and_the_loss_is_said",),
    ),
    "F42": ("nothing interrupts", ("test_an_interrupt_arrives_within_a_second_and_keeps_the_variables",)),
    "F43": (
        "a forwarded port answers 404 to a foreign origin",
        ("test_frames_of_any_size_pass_a_forwarded_port_unchanged",),
    ),
    "F44": (
        "downloads are spoiled",
        ("test_a_large_file_arrives_byte_equal_both_ways_over_a_link_that_is_cut_again_and_again",),
    ),
    "F45": (
        "large uploads are lost",
        ("test_a_large_file_crosses_a_link_that_is_cut_five_times_with_little_sent_twice",),
    ),
    "F46": (
        "the protocol drifts",
        (
            "test_f46_a_field_that_is_missing_is_named",
            "test_f46_a_listing_that_cannot_be_read_is_no_loss",
        ),
    ),
    "F47": (
        "a crash during creation leaves a machine that bills",
        (
            "test_f47_the_request_is_on_disk_before_it_is_put",
            "test_a_killed_process_leaves_at_most_one_runtime_which_the_next_one_adopts",
            "test_a_killed_process_leaves_at_most_one_runtime_which_the_next_one_releases",
        ),
    ),
    "F48": ("Drive refuses a sign-in without a quota project", ("test_scopes_and_the_quota_project_are_checked",)),
}

#: Rows that cannot happen to us, and why.
NOT_OURS = {
    "F27": "a defect of a kernel library that we do not use: hub and links are our own",
    "F28": "names of the same library",
    "F32": "a console that imports termios on the user's machine; only our code on the runtime does",
    "F40": "kernels are ended one by one, and we make no Jupyter sessions",
    "F41": "an extension's own fetch; our headers are merged in one place, the endpoint's",
}


def test_every_row_of_the_catalogue_has_tests_or_a_reason() -> None:
    assert sorted({*CATALOGUE, *NOT_OURS}, key=lambda row: int(row[1:])) == [f"F{number}" for number in range(1, 49)]
    assert not CATALOGUE.keys() & NOT_OURS.keys()


@pytest.mark.parametrize("row", CATALOGUE)
def test_the_tests_of_a_row_exist(row: str) -> None:
    found = {
        name
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text(encoding="utf-8"))
    }
    assert [name for name in CATALOGUE[row][1] if name not in found] == []
