//! `POST /submit`: a model's answer to a problem that the request brings along, or that the server was started with.

use cognate_languages::Language;
use cognate_records::{Status, TestVerdict, Verdict};
use serde_json::{Value, json};

use super::execute::{Task, run_limits};
use super::http::Response;
use super::types::{
    CommandResult, CommandStatus, Evaluated, Evaluation, RunCodeResult, RunStatus, StdioTest, Submit,
};
use super::{Server, seconds};
use crate::extract::{self, Found, Rule};
use crate::workers::{Bench, Job};

pub fn submit(server: &Server<'_>, bench: &mut Bench<'_>, request: &Submit) -> Result<Response, Response> {
    let refuse = |reason: String| Response::detail(422, reason);
    let data = request.config.provided_data.as_ref();
    let label = data.and_then(|d| d["labels"]["programming_language"].as_str());
    let name = request.config.language.as_deref().or(label);
    let name = name.ok_or_else(|| refuse("config.language is missing".into()))?;
    let language = server.language(name).map_err(refuse)?;
    let (code, found) =
        extract::extract(&Rule::Auto, &server.shared.tools.languages, language, &request.completion);
    let evaluation = match data {
        Some(data) => provided(server, bench, request, language, code, data)?,
        None => indexed(server, bench, request, language, code)?,
    };
    let extracted_type = Some(match found {
        Found::Fence => "fenced",
        Found::None => "empty",
        Found::Whole | Found::Tags => "heuristic",
    });
    Ok(Response::json(200, &Evaluation { extracted_type, ..evaluation }))
}

fn evaluation(request: &Submit, code: &str, accepted: bool, tests: Vec<Evaluated>) -> Evaluation {
    Evaluation {
        id: request.id.clone(),
        accepted,
        extracted_code: code.to_owned(),
        full_code: None,
        test_code: None,
        tests,
        extracted_type: None,
        extra: None,
    }
}

/// Tests of the form of `CommonOJDataset`, compared as SandboxFusion compares them.
fn provided(
    server: &Server<'_>,
    bench: &mut Bench<'_>,
    request: &Submit,
    language: &Language,
    code: &str,
    data: &Value,
) -> Result<Evaluation, Response> {
    let refuse = |reason: String| Response::detail(422, reason);
    // Some datasets hold the tests as text.
    let tests: Vec<StdioTest> = match &data["test"] {
        Value::String(text) => serde_json::from_str(text),
        list => serde_json::from_value(list.clone()),
    }
    .map_err(|e| refuse(format!("config.provided_data.test: {e}")))?;
    let run_seconds = seconds(server, request.config.run_timeout.unwrap_or(10.0)).map_err(refuse)?;
    let task = Task {
        language,
        code,
        files: Vec::new(),
        fetch: Vec::new(),
        compile_seconds: seconds(server, request.config.compile_timeout.unwrap_or(10.0)).map_err(refuse)?,
        run: run_limits(server.shared, language, run_seconds, -1),
    };
    let stdin = |t: &StdioTest| t.input.get("stdin").cloned().unwrap_or_default().into_bytes();
    let inputs: Vec<Vec<u8>> = tests.iter().map(stdin).collect();
    let inputs: Vec<&[u8]> = inputs.iter().map(Vec::as_slice).collect();
    let runs = task.execute(server.shared, bench, &inputs).map_err(|e| Response::detail(500, e))?;
    let tests: Vec<Evaluated> = tests
        .into_iter()
        .zip(runs)
        .map(|(test, exec_info)| {
            let expected = test.output.get("stdout").map_or("", String::as_str);
            let got = exec_info.run_result.as_ref().and_then(|r| r.stdout.as_deref());
            let passed =
                exec_info.status == RunStatus::Success && got.is_some_and(|got| alike(got, expected));
            Evaluated { passed, exec_info, test_info: Some(json!(test)) }
        })
        .collect();
    let accepted = !tests.is_empty() && tests.iter().all(|t| t.passed);
    Ok(evaluation(request, code, accepted, tests))
}

/// SandboxFusion's rule: lines without blanks around them, case ignored, or two numbers within a relative 1e-5.
fn alike(got: &str, expected: &str) -> bool {
    let number = |line: &str| line.parse::<f64>().ok();
    let same = |a: &str, b: &str| {
        let (a, b) = (a.trim(), b.trim());
        let near = |(x, y): (f64, f64)| (x - y).abs() / y.abs().max(1e-10) < 1e-5;
        a.to_lowercase() == b.to_lowercase() || number(a).zip(number(b)).is_some_and(near)
    };
    let (got, expected): (Vec<_>, Vec<_>) =
        (got.trim().split('\n').collect(), expected.trim().split('\n').collect());
    got.len() == expected.len() && got.iter().zip(expected).all(|(a, b)| same(a, b))
}

/// A problem of `--tests`, judged by its own rules; the verdict stands in `extra`.
fn indexed(
    server: &Server<'_>,
    bench: &mut Bench<'_>,
    request: &Submit,
    language: &Language,
    code: &str,
) -> Result<Evaluation, Response> {
    let id = request.id.as_str().map_or_else(|| request.id.to_string(), str::to_owned);
    let problem = server.problems.as_ref().map_or(Ok(None), |p| p.get(&id));
    let problem = problem.map_err(|e| Response::detail(500, e.to_string()))?;
    let problem = problem.ok_or_else(|| {
        Response::detail(
            404,
            format!("unknown problem {id:?}: start the server with --tests, or send provided_data"),
        )
    })?;
    let kind = server.shared.kinds.of(language).map_err(|e| Response::detail(500, e))?;
    let job = Job { ticket: 0, language: language.name.clone(), kind, source: code.to_owned(), problem };
    let verdict = bench.judge(&job).map_err(|e| Response::detail(500, format!("{e:#}")))?;
    if verdict.status == Status::IE {
        // Never counted as the program's: the client tries again, and then raises.
        return Err(Response::detail(500, verdict.message.unwrap_or_default()));
    }
    let tests = verdict.tests.iter().map(|t| evaluated(t, &verdict)).collect();
    let mut evaluation = evaluation(request, code, verdict.status == Status::AC, tests);
    evaluation.extra = Some(json!({ "verdict": verdict }));
    Ok(evaluation)
}

fn evaluated(test: &TestVerdict, verdict: &Verdict) -> Evaluated {
    let slow = test.status == Status::TLE;
    let run = CommandResult {
        status: if slow { CommandStatus::TimeLimitExceeded } else { CommandStatus::Finished },
        execution_time: None,
        cpu_time: None,
        return_code: test.exit.or(test.signal.map(|s| -s)),
        stdout: test.stdout.clone(),
        stderr: test.stderr.clone(),
    };
    let failed = matches!(test.status, Status::RE | Status::TLE | Status::MLE | Status::OLE | Status::CE);
    let info = RunCodeResult {
        status: if failed { RunStatus::Failed } else { RunStatus::Success },
        message: verdict.message.clone().unwrap_or_default(),
        run_result: (test.status != Status::CE).then_some(run),
        ..RunCodeResult::fault("")
    };
    Evaluated {
        passed: test.status == Status::AC,
        exec_info: info,
        test_info: Some(json!({ "status": test.status })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_compared_as_sandbox_fusion_does() {
        for (got, expected, right) in [
            ("1\n2\n", "1\n2", true),
            (" 1 \n\n", "1", true),
            ("YES", "yes", true),
            ("0.333334", "0.3333333", true),
            ("0.334", "0.333", false),
            ("1 2", "1  2", false),
            ("1\n2", "1\n2\n3", false),
            ("nan", "nan", true),
            ("nan", "1", false),
        ] {
            assert_eq!(alike(got, expected), right, "{got:?} {expected:?}");
        }
    }
}
