# For a GPU: torch's wheel brings CUDA, so that the host needs its driver and the container toolkit alone.
#   docker build -t bench . && docker run --rm --gpus all bench doctor
FROM python:3.12-slim
WORKDIR /bench
COPY . .
RUN pip install --no-cache-dir -e . && bench run digits
ENTRYPOINT ["bench"]
