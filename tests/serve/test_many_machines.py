"""The service in front of Redis: it accepts jobs, and says what keeps it from that."""

import time
from pathlib import Path

from tests.ports import free_port
from tests.redis_server import redis_server
from tests.serve.conftest import RunningServer, log_lines, without_llm


def test_redis_away_is_said_and_waited_for(tmp_path: Path) -> None:
    """Without Redis the service lives, is not ready, says so and accepts nothing; when Redis is back it goes on."""
    with redis_server() as redis:
        redis.stop()
        settings = without_llm(
            tmp_path, redis_url=redis.url, chroma_host="127.0.0.1", chroma_port=free_port(), chroma_timeout=1
        )
        with RunningServer(settings) as client, log_lines() as lines:
            state = client.get("/ready")
            assert state.status_code == 503
            assert any(problem.startswith("jobs: ") for problem in state.json()["problems"])
            assert state.json()["jobs"].startswith("Redis does not answer")
            for path in ("/ingest/", "/ingest/files"):
                refused = client.post(path, content=b"never parsed")
                assert refused.status_code == 503
                assert refused.headers["retry-after"]
                assert refused.json()["type"] == "urn:thresher:problem:job-store-unavailable"
                assert "does not answer" in refused.json()["detail"]
                # Where Redis is, is nobody's business.
                assert "redis" not in refused.text.lower()
            assert "Traceback" not in "".join(lines)
            assert client.get("/health").status_code == 200
            redis.start()
            while client.get("/ready").json()["jobs"] != "ok":
                time.sleep(0.1)
            headers = {"Idempotency-Key": "k"}
            jobs = [
                client.post("/ingest/", json={"texts": ["a", "b"]}, headers=headers).json() for _ in range(2)
            ]
            assert jobs[0]["status"] == "pending"
            assert jobs[0]["job_id"] == jobs[1]["job_id"]
            assert client.get("/ingest/").json()["items"][0]["total"] == 2
            cancelled = client.delete(f"/ingest/{jobs[0]['job_id']}")
            assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
