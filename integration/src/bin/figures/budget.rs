//! How long blocks take, and what is left out so that a run ends in time (`BUDGET`, in minutes).

use crate::{Block, Figure, Plan};

/// The plan of a quick run, of a whole one, or of one that ends in `budget` seconds.
pub fn plan(quick: bool, budget: Option<f64>) -> Plan {
    let mut plan = Plan { quick, share: 1.0 };
    // Less a part for what comes between blocks and isn't in the estimates.
    let Some(limit) = budget.map(|b| b * 0.95) else { return plan };
    while !quick && plan.share > 0.05 && total(&plan) > limit {
        plan.share -= 0.05;
    }
    plan
}

fn total(plan: &Plan) -> f64 {
    crate::blocks(plan).iter().filter(|b| crate::wanted(b)).map(|b| cost(plan, b)).sum()
}

/// Seconds, as seen on the machine of docs/figures (two processors).
pub fn cost(plan: &Plan, block: &Block) -> f64 {
    if plan.quick {
        return 10.0;
    }
    let rounds = |whole, least| f64::from(plan.rounds(whole, least));
    match block.figure {
        Figure::Restore => 60.0 + 12.0 * rounds(5, 2),
        Figure::Outage => 60.0 + 100.0 * rounds(3, 1),
        Figure::Launch => 10.0 + 25.0 * rounds(8, 2),
        Figure::ScaleRedis => 200.0 + 5.0 * rounds(15, 5),
        Figure::ScaleTomcat => 60.0 + 5.0 * rounds(15, 5),
        Figure::Limits => 75.0,
        Figure::Micro => 120.0,
    }
}

/// What was left out, for the tables.
pub fn words(plan: &Plan, budget: Option<f64>) -> String {
    match budget {
        _ if plan.quick => "A quick run of `make figures`: nothing here is a measurement.".into(),
        Some(budget) if plan.reduced() => format!(
            "A run of `make figures BUDGET={:.0}`: {:.0} % of a whole run's repetitions, and {}.",
            budget / 60.0,
            plan.share * 100.0,
            "with more than 100 containers only runc and Hydra",
        ),
        _ => "A whole run of `make figures`.".into(),
    }
}
