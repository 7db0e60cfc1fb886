//! The Parquet columns of every record type: the same names and nesting as in JSONL.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};

use crate::types::{
    Conversation, Embedding, Group, Metric, Packed, Problem, Program, Prompt, Rollout, StepEnd, VerdictRecord,
};
use crate::{Extra, Record};

pub(crate) fn schema_of<T: Record>() -> SchemaRef {
    let mut fields = T::columns();
    fields.push(text("extra"));
    Arc::new(Schema::new(fields))
}

/// Names of the columns of a type, without `extra`.
pub fn column_names<T: Record>() -> Vec<String> {
    T::columns().iter().map(|f| f.name().clone()).collect()
}

fn of(name: &str, kind: DataType) -> Field {
    Field::new(name, kind, true)
}

fn text(name: &str) -> Field {
    of(name, DataType::Utf8)
}

fn u32(name: &str) -> Field {
    of(name, DataType::UInt32)
}

fn u64(name: &str) -> Field {
    of(name, DataType::UInt64)
}

fn f32(name: &str) -> Field {
    of(name, DataType::Float32)
}

fn f64(name: &str) -> Field {
    of(name, DataType::Float64)
}

fn list(name: &str, item: DataType) -> Field {
    of(name, DataType::List(Arc::new(Field::new("item", item, true))))
}

fn record(fields: Vec<Field>) -> DataType {
    DataType::Struct(Fields::from(fields))
}

fn limits() -> Field {
    let names = ["cpu_ms", "wall_ms", "memory_mb", "processes", "file_mb", "output_kb"];
    of("limits", record(names.map(u64).to_vec()))
}

fn checker() -> Field {
    of(
        "checker",
        record(vec![
            text("kind"),
            f64("absolute"),
            f64("relative"),
            text("language"),
            text("source"),
            files("files"),
        ]),
    )
}

fn files(name: &str) -> Field {
    list(name, record(vec![text("name"), text("content")]))
}

fn origin() -> Field {
    of("origin", record(["corpus", "licence", "url", "path"].map(text).to_vec()))
}

fn messages() -> Field {
    list("messages", record(vec![text("role"), text("content")]))
}

fn verdict() -> Field {
    let test = record(vec![
        text("status"),
        f64("score"),
        of("exit", DataType::Int32),
        of("signal", DataType::Int32),
        text("stdout"),
        text("stderr"),
    ]);
    let triple = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
    let measured = record(vec![
        f64("cpu_ms"),
        f64("wall_ms"),
        u64("memory_kb"),
        f64("compile_cpu_ms"),
        list("tests", triple),
    ]);
    let fields = vec![
        text("status"),
        f32("reward"),
        f64("score"),
        text("failure"),
        u32("passed"),
        u32("run"),
        u32("total"),
        list("tests", test),
        text("extraction"),
        text("message"),
        text("detected_language"),
        of("measured", measured),
    ];
    of("verdict", record(fields))
}

fn test() -> DataType {
    record(vec![
        text("id"),
        text("kind"),
        text("input"),
        text("output"),
        text("code"),
        text("file"),
        files("files"),
        files("outputs"),
        text("language"),
        text("visibility"),
        text("group"),
        u64("size"),
        checker(),
        limits(),
    ])
}

fn member() -> DataType {
    let evidence = record(vec![text("kind"), text("status"), u32("tests")]);
    record(vec![text("id"), text("language"), text("source"), origin(), of("evidence", evidence)])
}

macro_rules! record {
    ($type:ty, $schema:literal, |$r:ident| $key:expr, [$($column:expr),* $(,)?]) => {
        impl Record for $type {
            const SCHEMA: &'static str = $schema;
            fn columns() -> Vec<Field> {
                vec![$($column),*]
            }
            fn key(&self) -> String {
                let $r = self;
                $key
            }
            fn validate(&self) -> Result<(), String> {
                crate::validate::Validate::check(self)
            }
            fn extra(&self) -> &Extra {
                &self.extra
            }
            fn extra_mut(&mut self) -> &mut Extra {
                &mut self.extra
            }
        }
    };
}

record!(
    Problem,
    "problem/1",
    |r| r.id.clone(),
    [
        text("id"),
        text("statement"),
        text("title"),
        text("split"),
        limits(),
        checker(),
        list("tests", test()),
        list("groups", record(vec![text("name"), f64("points")])),
        list("tags", DataType::Utf8),
        origin(),
    ]
);
record!(
    Program,
    "program/1",
    |r| r.id.clone(),
    [
        text("id"),
        text("problem"),
        text("language"),
        text("source"),
        text("claim"),
        text("split"),
        origin(),
        verdict(),
    ]
);
record!(
    Group,
    "group/1",
    |r| r.id.clone(),
    [text("id"), text("problem"), text("statement"), text("split"), list("members", member()),]
);
record!(
    Conversation,
    "conversation/1",
    |r| r.id.clone(),
    [text("id"), messages(), text("task"), text("language"), text("problem"), text("group"),]
);
record!(
    Packed,
    "packed/1",
    |r| r.id.clone(),
    [
        text("id"),
        list("ids", DataType::UInt32),
        list("weights", DataType::Float32),
        list("starts", DataType::UInt32),
        list("documents", DataType::Utf8),
    ]
);
record!(
    Prompt,
    "prompt/1",
    |r| r.id.clone(),
    [
        text("id"),
        text("problem"),
        text("language"),
        text("task"),
        messages(),
        text("text"),
        list("ids", DataType::UInt32),
        text("split"),
        list("stop_ids", DataType::UInt32),
    ]
);
record!(
    Rollout,
    "rollout/1",
    |r| format!("{}#{}", r.prompt, r.index),
    [
        text("prompt"),
        u32("index"),
        text("text"),
        text("problem"),
        text("language"),
        text("task"),
        text("split"),
        u64("round"),
        list("prompt_ids", DataType::UInt32),
        list("ids", DataType::UInt32),
        list("logprobs", DataType::Float32),
        list("sampling_logprobs", DataType::Float32),
        list("versions", DataType::UInt64),
        of(
            "parameters",
            record(vec![f32("temperature"), f32("top_p"), u32("top_k"), u32("max_tokens"), u64("seed")])
        ),
        text("finish"),
        text("model"),
        verdict(),
    ]
);
record!(
    VerdictRecord,
    "verdict/1",
    |r| r.id.clone(),
    [text("id"), text("problem"), text("language"), verdict()]
);
record!(
    Embedding,
    "embedding/1",
    |r| format!("{} layer {}", r.id, r.layer),
    [
        text("id"),
        text("problem"),
        text("language"),
        u32("layer"),
        text("pooling"),
        list("vector", DataType::Float32),
        text("model"),
    ]
);
record!(
    Metric,
    "metric/1",
    |r| r.name.clone(),
    [text("name"), f64("value"), of("labels", labels()), u64("step"), f64("low"), f64("high"), u64("count"),]
);
record!(
    StepEnd,
    "step_end/1",
    |r| format!("step {}", r.step),
    [u64("step"), u64("version"), u64("groups"), u64("rollouts")]
);

fn labels() -> DataType {
    let entry = record(vec![Field::new("key", DataType::Utf8, false), text("value")]);
    DataType::Map(Arc::new(Field::new("entries", entry, false)), false)
}
