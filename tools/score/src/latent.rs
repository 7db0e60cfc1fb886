//! `cog-score latent`: does the hidden space order programs by what they do, and more so after parallel SFT?

mod measure;
mod space;
mod view;

use std::fmt::Write;

use cognate_cli::{Common, usage};
use cognate_records::Metric;

use crate::cli::Latent;
use crate::metrics;
use crate::names::{self, Names, pairs};
use crate::outputs::Report;
use measure::{CHANCE, MEASURES};
use space::Space;
use view::View;

/// # Errors
/// When the input is at fault or a result cannot be written.
pub fn run(common: &Common, latent: &Latent) -> anyhow::Result<()> {
    latent.outputs.check(common)?;
    let names = Names::new(&latent.arms.names, names::languages(None)?).map_err(usage)?;
    let contrasts = pairs(&latent.arms.contrast).map_err(usage)?;
    let wanted = |m: &Metric| m.name == CHANCE || MEASURES.iter().any(|w| w.name == m.name);
    let metrics = metrics::read(common, &latent.files, "metric of cog-probe", wanted)?;
    let space = Space::new(&metrics)?;
    let (models, left_out) = space.models(&latent.arms.arms);
    let view = View { names: &names, space: &space, models, contrasts };
    let title = latent.title.clone().unwrap_or_else(|| "Latent space by layer".into());
    let mut markdown = view.page(&title);
    if !left_out.is_empty() {
        let _ =
            writeln!(markdown, "\nNot in the tables, though there are metrics: arm {}.", left_out.join(", "));
    }
    let svg = match &latent.outputs.svg {
        Some(_) => Some(view.plot(&title).svg()?),
        None => None,
    };
    let report = Report { markdown, metrics: view.export(), svg };
    latent.outputs.write(common, &latent.files, &report)
}
