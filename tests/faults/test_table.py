"""Every row of the table has a test: here, or where its subject is tested at length."""

import re

from tests.faults import child

ROWS = 66
ELSEWHERE = {
    32: "test_exactness.py::test_activation_is_right_to_2_ulp_for_every_float32",
    38: "test_targets.py::test_same_bits_for_every_processor",
    44: "test_sweep_commands.py::test_a_stopped_job_keeps_what_is_done",
    45: "test_sweep_run.py::test_a_dead_process_costs_its_tasks_only",
    46: "test_sweep_run.py::test_a_failing_task_is_named_and_all_others_are_done",
    57: "test_assembly.py::test_kernel_has_vectors_and_calls_no_mathematical_library",
    58: "test_sweep_commands.py::test_a_job_killed_thirty_times_is_bit_equal_to_one_that_was_not",
    59: "test_sweep_run.py::test_a_full_disk_keeps_what_is_done_and_says_what_is_needed",
    60: "test_sweep_run.py::test_another_sweep_is_refused_unless_forced",
    61: "test_sweep_run.py::test_a_second_run_is_refused",
    62: "test_sweep_run.py::test_verify_names_exactly_what_is_damaged_and_a_run_mends_just_that",
    63: "test_sweep_run.py::test_a_receipt_that_is_gone_is_a_task_not_computed",
    65: "test_sweep_description.py::test_wrong_toml_names_key_and_line",
}


def test_every_row_has_a_test():
    tests = child.SOURCE / "tests"
    text = "".join(path.read_text() for path in (tests / "faults").glob("test_*.py"))
    here = {int(number) for number in re.findall(r"^def test_(\d\d)_", text, re.MULTILINE)}
    assert here | set(ELSEWHERE) == set(range(1, ROWS + 1))
    for place in ELSEWHERE.values():
        file, name = place.split("::")
        assert f"\ndef {name}(" in (tests / file).read_text(), place
