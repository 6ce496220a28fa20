use super::*;

#[test]
fn fios_report_is_found_behind_its_warnings() {
    let said = "fio: note\n{\"jobs\": [{\"write\": {\"total_ios\": 12, \"runtime\": 0}}]}";
    let job = job_of(said).unwrap();
    assert_eq!(number(&job["write"]["total_ios"]).unwrap(), 12.0);
    assert!(
        number(&job["write"]["runtime"]).is_err(),
        "nothing took no time"
    );
    assert!(number(&job["read"]["runtime"]).is_err());
    assert_eq!(job_of("fio: no such file"), None);
}
