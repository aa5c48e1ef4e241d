//! Belay.
#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().json().with_env_filter("belay=debug").init();
    let args: Vec<String> = std::env::args().collect();
    let flag = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    match args.get(1).map(String::as_str) {
        Some("operator") => {
            let r = belay::operator::run(belay::operator::Options {
                target: belay::cluster::Target::default(),
                namespace: flag("--namespace"),
                listen: flag("--listen").map(|l| l.parse().unwrap()),
                lease_namespace: "belay-system".into(),
                lease_name: flag("--lease-name").unwrap_or("belay".into()),
                brake: "brake.belay.dev".into(),
                instance: "dev".into(),
            })
            .await;
            println!("{r:?}");
        }
        _ => {
            for (f, s) in belay::install::files().unwrap() {
                std::fs::write(format!("manifests/{f}"), s).unwrap();
            }
        }
    }
}
